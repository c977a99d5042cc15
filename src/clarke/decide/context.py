"""What the rungs of the ladder share: the gradient that is judged, its roundings, verdicts."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten, random_tangents
from clarke.decide.allowed import least_bounds
from clarke.decide.certificate import Certificate, exactly
from clarke.decide.detached import read_into_python
from clarke.decide.disagree import name_disagreement, name_nonfinite_value
from clarke.decide.model import Confirm, Culprit, Decision, Settings, Witness, weighted_sum
from clarke.decide.normal import outer_estimate
from clarke.decide.responsible import culprits_of, responsible_kinks, wrong_functions
from clarke.decide.rounding import Rounding, spacings
from clarke.decide.summed import Lost, lost_terms, narrow_sums
from clarke.decide.tied import is_narrow, rounded_ties
from clarke.decide.tolerance import added, larger, ray_bounds, relative_difference, within
from clarke.decide.verification import ad_weights, own_gradient
from clarke.decide.witnessed import Witnessed, replay_bounds
from clarke.errors import BudgetError, OutOfTimeError
from clarke.kinks import Hazard
from clarke.kinks.smooth import why_not
from clarke.numerics import CONFIRMED, SEARCH_SHARE
from clarke.steering import Pieces, Program, natural_gradient
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from clarke.constraints import Relevance
    from clarke.decide.confirm import Gradient
    from clarke.decide.exact import Exact
    from clarke.decide.outer import Outer


class Context:
    """What the rungs share."""

    def __init__(
        self,
        program: Program,
        gradient: tuple[torch.Tensor, ...],
        relevance: Relevance,
        settings: Settings,
        generator: torch.Generator,
        run: Gradient | None,
    ) -> None:
        self.program = program
        self.gradient = gradient
        self.relevance = relevance
        self.settings = settings
        self.generator = generator
        self.run = run
        self.given = False  # the gradient may be anything, and differ without a reason in the trace
        self._asked: tuple[object, ...] = ()  # arguments from the outer estimate
        self.looked_beside = False  # whether the program beside its roundings was looked at
        self.freed: Context | None = None  # that program, where it proved something

    def within(self, share: float) -> Program:
        """The program with a share of the time that is left, for one rung among several."""
        return self.program.within(self.program.deadline.part(share))

    @cached_property
    def outer(self) -> Outer | None:
        """The outer estimate; None where it is too large, or steps have no slope."""
        if Hazard.STEP in self.relevance.hazards:
            return None
        try:
            return outer_estimate(self.program, self.generator, self.program.deadline)
        except BudgetError:
            return None

    @cached_property
    def own(self) -> tuple[torch.Tensor, ...]:
        """The gradient of AD's own pieces, in float64."""
        return own_gradient(self.program)

    @cached_property
    def rounding(self) -> Rounding:
        """What rounding in the program's own types can have done to AD's gradient."""
        return Rounding(self.program, self.own, weights=ad_weights(self.program))

    @cached_property
    def is_narrow(self) -> bool:
        """Whether some of the program runs in half precision."""
        return is_narrow(self.program.analysis.trace)

    @cached_property
    def lost(self) -> Lost | None:
        """What AD's gradient has lost in sums that kernels add up one by one in a narrow type."""
        sums = narrow_sums(self.program)
        return lost_terms(self.program, self.gradient, sums) if sums else None

    @cached_property
    def rounded(self) -> torch.Tensor:
        """(count,) bool: touched kinks that are tied by rounding alone."""
        return rounded_ties(self.program)

    @cached_property
    def plain(self) -> tuple[torch.Tensor, ...]:
        """What the last rounding of AD's gradient alone may have done."""
        return spacings(self.gradient, [g.dtype for g in self.gradient])

    @cached_property
    def differs(self) -> bool:
        """Whether AD's gradient and that of its selection differ by more than rounding."""
        return not self.rounding.covers(self.gradient)

    @cached_property
    def judged(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """What is held against the set, and how far each of its entries may be off.

        AD's own pieces in float64, where what AD returned is that but for roundings: a kink may
        matter by less than the roundings of a coarse type.
        """
        replay = Rounding(self.program, self.own, weights=ad_weights(self.program), double=True)
        if self.differs:
            return self.gradient, added(self.rounding.bounds, replay.bounds)
        return self.own, replay.bounds

    def unwitnessed(self) -> Decision:
        """Nothing is proved by a search that found no direction."""
        return self.undecided(
            "No direction was found that selects AD's pieces at every relevant kink, "
            "which proves nothing by itself."
        )

    def accept(
        self,
        verdict: Verdict,
        witnesses: tuple[Witness, ...],
        weights: tuple[float, ...],
        theorem: str,
        allowed: tuple[torch.Tensor, ...] | None = None,
    ) -> Decision:
        """A positive verdict, if its certificate holds.

        Args:
            verdict: The verdict.
            witnesses: Directions with their gradients.
            weights: Their convex weights.
            theorem: The argument.
            allowed: How far each entry of their sum may be off, apart from AD's roundings.
        """
        value = self.program.run(pieces=Pieces.NATURAL, grad=False).output
        if not bool(torch.isfinite(value).all()):
            return self._without_value()
        least = least_bounds(self.program, self.gradient, witnesses, weights)
        program, vector = self.program, exactly(self.gradient)
        proof = Witnessed(
            witnesses=witnesses,
            weights=weights,
            bounds=least if allowed is None else added(least, allowed),
            run_gradient=self.run,
        )
        if not proof.adds_up(program, vector):
            for room in self._rooms(allowed):
                proof = replace(proof, bounds=added(room, least))
                if proof.adds_up(program, vector):
                    break
            mean = weighted_sum([w.gradient for w in witnesses], weights)
            if proof.adds_up(program, vector) and (
                self.rounding.vague(self.gradient) or self.rounding.strays(self.gradient, mean)
            ):
                return self.undecided(
                    "The gradient agrees entry by entry with what ran, as far as the program's own "
                    "types can tell, but that proves nothing: what rounding can do to it is of the "
                    "size of its terms, or it is off as a whole by more than rounding explains. "
                    "Run the program in a wider type."
                )
        proof, defects = self._confirmed(proof, vector)
        if defects:
            if not proof.adds_up(program, vector):
                own = self.own_formula()
                if own is not None:
                    return own
            read = read_into_python(self.program.analysis.trace)
            hint = f" {read[0]}: it may decide a branch." if read else ""
            return self.undecided(
                f"{verdict.so_far}, but running the program does not confirm it: "
                f"{defects[0]}.{hint}",
                culprits=self.disagreement(witnesses[0]) or read,
            )
        return Decision(
            verdict,
            verdict.value,
            Certificate(program, vector, proof).sealed(),
            theorem,
            analysis=self.program.analysis,
            relevance=self.relevance,
        )

    def _confirmed(
        self, proof: Witnessed, vector: tuple[torch.Tensor, ...]
    ) -> tuple[Witnessed, tuple[str, ...]]:
        """A proof with what it needs to be confirmed, and what is wrong with it then."""
        program, run = self.program, self.settings.confirm is Confirm.ALWAYS
        with program.deadline.during("confirming the verdict"):
            defects = proof.own_defects(program, vector, run=run)
            if defects and proof.adds_up(program, vector):
                found = replay_bounds(program, proof.witnesses)
                wider = larger(self.rounding.bounds, found)
                proof = replace(proof, replay_bounds=wider)
                defects = proof.own_defects(program, vector, run=run)
        if defects and run and proof.adds_up(program, vector):
            # The function may bend nearer to the point than the usual steps.
            finest = proof.finest_told(program)
            if finest < proof.finest:
                proof = replace(proof, finest=finest)
                defects = proof.own_defects(program, vector, run=run)
        return proof, defects

    def _rooms(
        self, allowed: tuple[torch.Tensor, ...] | None
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """How far a sum may be off, as far as it has been computed; more, if that is too little."""
        plain = self.plain if allowed is None else allowed
        if not self.differs:
            yield added(self.rounding.so_far, plain)
            yield added(self.rounding.bounds, plain)
        if allowed is None:
            yield added(self.judged[1], self.rounding.bounds)
        elif self.differs:
            yield allowed

    @cached_property
    def is_torchs_own(self) -> bool:
        """Whether a replay gets the same gradient from PyTorch's formulas: no hook changed it."""
        natural = natural_gradient(self.program)
        room = added(self.rounding.bounds, spacings(natural, [g.dtype for g in self.gradient]))
        return within(natural, self.gradient, room)

    def along_rays(self, witnesses: tuple[Witness, ...]) -> tuple[torch.Tensor, ...]:
        """What the extrapolation of limits along rays leaves open."""
        sizes = tuple(g.detach().to(torch.float64).abs() for g in self.gradient)
        for w in witnesses:
            sizes = larger(sizes, tuple(g.abs() for g in w.gradient))
        return ray_bounds(sizes)

    def mismatch(self, own: tuple[torch.Tensor, ...]) -> Decision:
        """AD's gradient is not that of the pieces that it took."""
        gap = relative_difference(own, self.gradient)
        return self.undecided(
            f"AD's gradient differs from the derivative of the selected pieces by {gap:.2g}, "
            "relative: some operation's own derivative formula is not that of its pieces.",
            culprits=wrong_functions(self.program.analysis) or self.disagreement(None),
        )

    def changed(self) -> Decision:
        """At no kink, AD's gradient is not that of what ran, by more than rounding does."""
        there, own = flatten(self.gradient), flatten(self.own)
        at = int(np.abs(there - own).argmax())
        return self.undecided(
            "No kink matters here, but the gradient is not that of the operations that ran: one "
            f"entry is {there[at]:.6g} in place of {own[at]:.6g}, which rounding does not explain. "
            "A hook that changes gradients (register_hook) does such a thing: what it makes is no "
            "derivative of this function, but may be what you want. Judge without it to tell."
        )

    def undecided(self, reason: str, culprits: tuple[Culprit, ...] = ()) -> Decision:
        """The undecided verdict; it names the first relevant kinks unless told what to name."""
        if not culprits:
            sites = [
                s
                for s in self.program.analysis.ordered()
                if bool(self.relevance.relevant[s.first : s.first + s.touch.count].any())
            ]
            culprits = tuple(
                Culprit(s.touch.op.shown, s.touch.op.location, "a relevant kink is touched")
                for s in sites[:8]
            )
        return Decision(
            Verdict.UNDECIDED,
            reason,
            culprits=culprits,
            analysis=self.program.analysis,
            relevance=self.relevance,
        )

    def _without_value(self) -> Decision:
        """NONFINITE for a finite gradient of what has no finite value itself."""
        culprits = name_nonfinite_value(self.program)
        return Decision(
            Verdict.NONFINITE,
            "".join(f"{c}. " for c in culprits[:1])
            + "The function's own value is not finite here, so that it has no generalized "
            "gradient, although the gradient that was returned is finite.",
            culprits=culprits,
            analysis=self.program.analysis,
            relevance=self.relevance,
        )

    def own_formula(self) -> Decision | None:
        """What to say where an operation's own formula alone makes AD's gradient differ."""
        doubtful = self.program.analysis.doubtful.values()
        if not doubtful:
            return None
        true = natural_gradient(self.program, pieces=Pieces.TRUE)
        natural = natural_gradient(self.program)
        if relative_difference(true, natural, (), self.judged[1]) <= CONFIRMED:
            return None
        culprits = self.in_doubt()
        return self.undecided(
            "AD's gradient differs from the derivative of the values that were computed, since "
            f"an operation's own formula holds for other programs only: {culprits[0]}.",
            culprits=culprits,
        )

    def in_doubt(self) -> tuple[Culprit, ...]:
        """The operations whose own formula is in doubt, and why."""
        return tuple(
            Culprit(
                s.touch.op.shown,
                s.touch.op.location,
                why_not(s.touch.op.name) or "autograd's formula for it is not always true",
            )
            for s in self.program.analysis.doubtful.values()
        )

    def responsible(self, exact: Exact, allowed: NDArray[np.float64]) -> tuple[Culprit, ...]:
        """The kinks at fault; all that were branched on where time does not allow for less."""
        try:
            kinks = responsible_kinks(self.within(SEARCH_SHARE), exact, allowed, self.generator)
        except OutOfTimeError:
            kinks = tuple(exact.live.kinks.nonzero().squeeze(1).tolist())
        return culprits_of(self.program, kinks)

    def disagreement(self, witness: Witness | None) -> tuple[Culprit, ...]:
        """The operations at which running the program differs from the rules."""
        direction = (
            witness.direction
            if witness is not None
            else random_tangents(self.program, self.generator)
        )
        try:
            return name_disagreement(self.program, direction)
        except OutOfTimeError:
            return ()  # the verdict stands without
