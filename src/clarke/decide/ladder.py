"""From a trace and a gradient to a verdict, cheapest argument first."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import find_relevant, flatten, random_tangents, unflatten
from clarke.decide.certificate import Certificate, weighted_sum
from clarke.decide.detached import read_into_python
from clarke.decide.disagree import name_disagreement, name_nonfinite_value
from clarke.decide.hazards import LIPSCHITZ, judge_hazards, obstacle
from clarke.decide.mixture import mix_neighbours, mix_witnesses
from clarke.decide.model import Confirm, Culprit, Decision, Settings, Witness, ray_witness
from clarke.decide.nonfinite import judge_nonfinite
from clarke.decide.rays import mean_of_limits
from clarke.decide.refute import (
    enumerate_exactly,
    mix_cells,
    nearest_correct,
    refute,
    rounding_of_set,
)
from clarke.decide.responsible import culprits_of, hints, responsible_kinks, wrong_functions
from clarke.decide.rounding import Rounding, spacings
from clarke.decide.search import witness_selection
from clarke.decide.tolerance import added, larger, relative_difference
from clarke.decide.vectors import used_vectors
from clarke.errors import BudgetError, ReplayError
from clarke.kinks import Hazard, default_registry
from clarke.kinks.smooth import why_not
from clarke.numerics import CONFIRMED, RAY_LIMIT, SET_ROUNDINGS, UNIT
from clarke.steering import Pieces, Program, analyse, natural_gradient, selected_gradient
from clarke.theorems import bias_shift
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.capture import Trace
    from clarke.constraints import Relevance
    from clarke.decide.confirm import Gradient
    from clarke.decide.mixture import Mixed
    from clarke.kinks import Registry
    from clarke.steering import Analysis

_LOOKED_AT = 3  # witnesses whose roundings are looked at
_MANY = 64  # relevant kinks from which the bias shift is tried before a search over rows


def decide(
    trace: Trace,
    registry: Registry,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor],
    settings: Settings,
    run_gradient: Gradient | None = None,
    *,
    sees_values: bool = False,
) -> Decision:
    """Judge a gradient.

    Args:
        trace: What ran.
        registry: The rules.
        variables: External slots of the variables, in the order of `gradient`.
        gradient: What AD returned, one tensor per variable.
        settings: Limits.
        run_gradient: AD's gradient of the program itself at another point; by default the
            recorded operations are run again in float64.
        sees_values: The verdict will be held against values of the program itself
            (`judge_detached`).
    """
    analysis = analyse(trace, registry)
    blocked = obstacle(analysis, sees_values=sees_values)
    if blocked is not None:
        return blocked
    if len(variables) != len(gradient):
        return Decision(
            Verdict.UNDECIDED,
            "Autograd's graph holds a leaf that no recorded operation read, so that clarke did not "
            "see how the result depends on it. Compute the result inside the function given to "
            "clarke.check, without functions that hide what they read.",
            analysis=analysis,
        )
    try:
        return _decide(analysis, variables, tuple(gradient), settings, run_gradient)
    except ReplayError as error:
        return Decision(Verdict.UNDECIDED, str(error), analysis=analysis)


def _decide(
    analysis: Analysis,
    variables: Sequence[int],
    gradient: tuple[torch.Tensor, ...],
    settings: Settings,
    run_gradient: Gradient | None,
) -> Decision:
    generator = torch.Generator().manual_seed(settings.seed)
    program = Program(analysis, variables)
    run = run_gradient or (lambda point: natural_gradient(program, point))
    if not all(bool(torch.isfinite(g).all()) for g in gradient):
        return judge_nonfinite(program, gradient, generator)
    relevance = find_relevant(program, generator)
    context = _Context(program, gradient, relevance, settings, generator, run)
    hazard = judge_hazards(program, relevance, generator)
    if hazard is not None:
        # What AD returns at an improper kink is judged against the set, not by its weights.
        kinds = set(relevance.hazards)
        if kinds == {Hazard.IMPROPER}:
            return context.exact(hazard)
        vectors = used_vectors(analysis) is not None
        if relevance.lost_masks or not kinds <= LIPSCHITZ or vectors:
            return hazard
        return context.limits() or hazard
    if not bool(relevance.relevant.any()):
        return context.smooth()
    if not bool((relevance.relevant & relevance.mixed).any()):
        found = context.bouligand()
        if found is None:
            found = context.exact(context.unwitnessed())
        return found
    return context.mixture()


class _Context:
    """What the rungs share."""

    def __init__(
        self,
        program: Program,
        gradient: tuple[torch.Tensor, ...],
        relevance: Relevance,
        settings: Settings,
        generator: torch.Generator,
        run: Gradient,
    ) -> None:
        self.program = program
        self.gradient = gradient
        self.relevance = relevance
        self.settings = settings
        self.generator = generator
        self.run = run

    def limits(self) -> Decision | None:
        """AD's gradient as a limit of gradients along a ray, or a mean of such limits."""
        rest = (self.program, self.gradient, self.relevance, self.generator)
        found = mean_of_limits(*rest, self.plain)
        if found is None:
            found = mean_of_limits(*rest, added(self.rounding.bounds, self.plain))
        if found is None:
            return None
        witnesses, weights, theorem = found
        verdict = Verdict.BOULIGAND if len(witnesses) == 1 else Verdict.CLARKE
        return self.accept(verdict, witnesses, weights, theorem, self._along_rays(witnesses))

    def smooth(self) -> Decision:
        direction = random_tangents(self.program, self.generator)
        own = self.own
        if self.differs and wrong_functions(self.program.analysis):
            return self.exact(self.mismatch(own))
        # Opposite rays: a branch that the trace does not show parts them.
        ahead = ray_witness(direction, own)
        back = replace(ahead, direction=tuple(-d for d in direction))
        return self.accept(Verdict.SMOOTH, (ahead, back), (0.5, 0.5), "no relevant kink")

    def shifted(self) -> Decision | None:
        """AD's selection by a shift of biases, where the network's structure allows one."""
        found = bias_shift(self.program, default_registry(), self.relevance.relevant)
        if found is None:
            return None
        own = selected_gradient(self.program)
        if self.differs:
            return None
        witness = Witness(
            direction=found.direction,
            choices={},
            gradient=own,
            rows=found.rows.numpy()[:, None],
            coefficients=torch.ones(1, dtype=torch.float64).numpy(),
            kinks=found.kinks.numpy(),
            margin=found.margin,
            methods=(),
        )
        decision = self.accept(Verdict.BOULIGAND, (witness,), (1.0,), "bias shift")
        # A direction of very unequal parts may be too rough to confirm; others may do better.
        return decision if decision.verdict is Verdict.BOULIGAND else None

    def bouligand(self) -> Decision | None:
        if int(self.relevance.relevant.sum()) > _MANY:
            shifted = self.shifted()
            if shifted is not None:
                return shifted
        witness, _ = witness_selection(
            self.program, {}, self.relevance.relevant, self.settings, self.generator
        )
        if witness is None:
            return None
        if self.differs:
            return self.exact(self.mismatch(witness.gradient))
        return self.accept(Verdict.BOULIGAND, (witness,), (1.0,), "witness")

    def mixture(self) -> Decision:
        return self._mixed_by(mix_witnesses, "witness") or self.exact(self.unwitnessed())

    def neighbours(self) -> Decision | None:
        """A mixture of selections next to AD's, which is itself active nowhere nearby."""
        if bool((self.relevance.relevant & self.relevance.mixed).any()) or self.relevance.hazards:
            return None
        return self._mixed_by(mix_neighbours, "witness of a neighbour")

    def _mixed_by(self, mix: Callable[..., Mixed | None], alone: str) -> Decision | None:
        """What follows from a mixture; `alone` names the argument where one witness is enough."""
        judged, allowed = self.judged
        room = flatten(allowed)
        mixed = mix(self.program, judged, self.relevance, self.settings, self.generator, room)
        if mixed is None:
            return None
        if len(mixed[0]) == 1:  # its gradient and AD's differ by no more than rounding
            return self.accept(Verdict.BOULIGAND, *mixed, alone)
        return self.accept(Verdict.CLARKE, *mixed, "mixture of witnesses")

    @cached_property
    def own(self) -> tuple[torch.Tensor, ...]:
        """The gradient of AD's own pieces, in float64."""
        return selected_gradient(self.program, weights=_ad_weights(self.program))

    @cached_property
    def rounding(self) -> Rounding:
        """What rounding in the program's own types can have done to AD's gradient."""
        return Rounding(self.program, self.own, weights=_ad_weights(self.program))

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
        replay = Rounding(self.program, self.own, weights=_ad_weights(self.program), double=True)
        if self.differs:
            return self.gradient, added(self.rounding.bounds, replay.bounds)
        return self.own, replay.bounds

    def unwitnessed(self) -> Decision:
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
            return self.undecided(
                "The function's own value is not finite here, so that it has no generalized "
                "gradient, although the gradient that was returned is finite.",
                culprits=name_nonfinite_value(self.program),
            )
        sizes = weighted_sum([[g.abs() for g in w.gradient] for w in witnesses], weights)
        summing = tuple(SET_ROUNDINGS * UNIT * s for s in sizes)
        certificate = Certificate(
            gradient=tuple(g.detach().to(torch.float64).clone() for g in self.gradient),
            point=self.program.point,
            witnesses=witnesses,
            weights=weights,
            bounds=added(self.plain, summing if allowed is None else added(summing, allowed)),
            run_gradient=self.run,
            held_gradient=self._held_gradient(),
        )
        if not certificate.adds_up():
            bounds = added(self.judged[1] if allowed is None else allowed, summing)
            if allowed is None or not self.differs:
                bounds = added(bounds, self.rounding.bounds)
            certificate = replace(certificate, bounds=bounds)
            if certificate.adds_up() and self.rounding.vague(self.gradient):
                return self.undecided(
                    "The gradient agrees with the rules entry by entry as far as the program's own "
                    "types can tell, but that proves nothing: what rounding can do to it is of the "
                    "size of its terms, or it is off as a whole by more than rounding explains. "
                    "Run the program in a wider type."
                )
        run = self.settings.confirm is Confirm.ALWAYS
        defects = certificate.defects(run=run)
        if defects and certificate.adds_up():
            certificate = replace(certificate, replay_bounds=self._replay_bounds(witnesses))
            defects = certificate.defects(run=run)
        if defects:
            if not certificate.adds_up():
                own = self.own_formula()
                if own is not None:
                    return own
            read = read_into_python(self.program.analysis.trace)
            hint = f" {read[0]}: it may decide a branch." if read else ""
            return self.undecided(
                f"The rules say {verdict.name}, but running the program does not confirm it: "
                f"{defects[0]}.{hint}",
                culprits=self._disagreement(witnesses[0]) or read,
            )
        return Decision(
            verdict,
            verdict.value,
            certificate,
            theorem,
            analysis=self.program.analysis,
            relevance=self.relevance,
        )

    def _along_rays(self, witnesses: tuple[Witness, ...]) -> tuple[torch.Tensor, ...]:
        sizes = self.gradient
        for w in witnesses:
            sizes = larger([s.abs() for s in sizes], [g.abs() for g in w.gradient])
        extrapolated = [RAY_LIMIT * s.abs() for s in sizes]
        return tuple(extrapolated)

    def _replay_bounds(self, witnesses: tuple[Witness, ...]) -> tuple[torch.Tensor, ...]:
        """What rounding can do to gradients beside the point."""
        bounds = self.rounding.bounds
        for w in witnesses[:_LOOKED_AT]:
            mixture = None if w.choices else _ad_weights(self.program)
            own = Rounding(self.program, w.gradient, w.choices, mixture, double=True)
            bounds = larger(bounds, own.bounds)
        return bounds

    def exact(self, otherwise: Decision) -> Decision:
        """Enumerate all selections: membership, or a proof that the gradient is wrong."""
        own_formula = self.own_formula()
        if own_formula is not None:
            return own_formula
        program = self.program
        judged, bounds = self.judged
        size = sum(p.numel() for p in program.point)
        kinks = min(self.settings.exact.kinks, self.settings.dense_entries // max(size, 1))
        try:
            exact = enumerate_exactly(
                program, self.generator, replace(self.settings.exact, kinks=kinks)
            )
        except BudgetError as error:
            beside = self.neighbours()
            if beside is not None:
                return beside
            return replace(otherwise, reason=f"{otherwise.reason} {error}")
        own = flatten(judged)
        elements = rounding_of_set(program, exact.limits)
        allowed = flatten(bounds) + elements
        mixed = mix_cells(exact, program, own, allowed)
        if mixed is not None:
            witnesses, weights = mixed
            verdict = Verdict.BOULIGAND if len(witnesses) == 1 else Verdict.CLARKE
            room = unflatten(allowed, program.point)
            return self.accept(verdict, witnesses, weights, "exact enumeration", room)
        proof = refute(exact, program, own, allowed)
        if proof is None:
            return replace(
                otherwise,
                reason="The gradient is not a combination of limiting gradients that could be "
                "proved, but some selections could be neither proved nor excluded.",
            )
        coarse = flatten(self.rounding.bounds) + elements
        if proof.gap <= float(np.abs(proof.direction) @ coarse):
            return replace(
                otherwise,
                reason="The gradient is not a combination of limiting gradients, but misses them "
                f"by {proof.distance:.1e} only, no more than its type can tell apart.",
            )
        defects = proof.defects(run=self.settings.confirm is Confirm.ALWAYS)
        if defects:
            return self.undecided(f"The rules say NOT_CLARKE, but: {defects[0]}.")
        culprits = culprits_of(program, responsible_kinks(program, exact, allowed, self.generator))
        culprits = culprits or wrong_functions(program.analysis)
        correct = nearest_correct(exact, own)
        many = proof.limits.count if proof.limits.count > 4096 else len(proof.points)
        return Decision(
            Verdict.NOT_CLARKE,
            f"{Verdict.NOT_CLARKE.value} It is {proof.distance:.3g} away from the "
            + ("only limiting gradient." if many == 1 else f"hull of {many} limiting gradients."),
            certificate=proof,
            theorem="exact enumeration",
            culprits=culprits,
            analysis=program.analysis,
            relevance=self.relevance,
            notes=hints(program, culprits),
            element=None if correct is None else unflatten(correct, program.point),
        )

    def _held_gradient(self) -> Gradient | None:
        kinds = {d for d in self.program.analysis.trace.slot_dtypes.values() if d.is_floating_point}
        if kinds <= {torch.float64}:
            return None
        return lambda point: natural_gradient(self.program, point, Pieces.HELD)

    def mismatch(self, own: tuple[torch.Tensor, ...]) -> Decision:
        gap = relative_difference(own, self.gradient)
        return self.undecided(
            f"AD's gradient differs from the derivative of the selected pieces by {gap:.1e}, "
            "relative: some operation's own derivative formula is not that of its pieces.",
            culprits=wrong_functions(self.program.analysis) or self._disagreement(None),
        )

    def undecided(self, reason: str, culprits: tuple[Culprit, ...] = ()) -> Decision:
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

    def own_formula(self) -> Decision | None:
        """What to say where an operation's own formula alone makes AD's gradient differ."""
        doubtful = self.program.analysis.doubtful.values()
        if not doubtful:
            return None
        true = natural_gradient(self.program, pieces=Pieces.TRUE)
        natural = natural_gradient(self.program)
        bounds = Rounding(self.program, self.own, weights=_ad_weights(self.program), double=True)
        if relative_difference(true, natural, (), bounds.bounds) <= CONFIRMED:
            return None
        culprits = tuple(
            Culprit(
                s.touch.op.shown,
                s.touch.op.location,
                why_not(s.touch.op.name) or "autograd's formula for it is not always true",
            )
            for s in doubtful
        )
        return self.undecided(
            "AD's gradient differs from the derivative of the values that were computed, since "
            f"an operation's own formula holds for other programs only: {culprits[0]}.",
            culprits=culprits,
        )

    def _disagreement(self, witness: Witness | None) -> tuple[Culprit, ...]:
        direction = (
            witness.direction
            if witness is not None
            else random_tangents(self.program, self.generator)
        )
        return name_disagreement(self.program, direction)


def _ad_weights(program: Program) -> dict[int, torch.Tensor]:
    return {
        p: s.touch.weights for p, s in program.analysis.sites.items() if bool(s.touch.mixed().any())
    }
