"""The arguments for a verdict, cheapest first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from clarke.constraints import flatten, random_tangents, unflatten
from clarke.decide.allowed import rounding_of_selections
from clarke.decide.branches import other_side
from clarke.decide.certificate import Certificate
from clarke.decide.context import Context
from clarke.decide.cures import hints
from clarke.decide.disagree import name_formula
from clarke.decide.estimated import is_large, is_rounding, judge_by_estimate, wrong_part
from clarke.decide.exact import enumerate_exactly, nearest_correct, rounding_of_set
from clarke.decide.guards import judge_guard
from clarke.decide.meeting import JumpsBesideError
from clarke.decide.mixed import mix_cells
from clarke.decide.mixture import mix_directions, mix_opposites, mix_witnesses
from clarke.decide.model import Confirm, Decision, Witness, ray_witness
from clarke.decide.neighbours import mix_neighbours
from clarke.decide.norms import NormSeparation, judge_norms
from clarke.decide.origins import judge_beside_roundings
from clarke.decide.rays import mean_of_limits, mean_toward
from clarke.decide.refute import refute
from clarke.decide.responsible import wrong_functions
from clarke.decide.search import witness_selection
from clarke.decide.tolerance import added
from clarke.decide.verification import ad_weights
from clarke.errors import BudgetError, OutOfTimeError
from clarke.kinks import default_registry
from clarke.numerics import EXACT_SHARE, SEARCH_SHARE
from clarke.steering import selected_gradient
from clarke.theorems import bias_shift
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from clarke.decide.exact import Exact
    from clarke.decide.mixture import Mixed

_MANY = 64  # relevant kinks from which the bias shift is tried before a search over rows


def _distance(many: int, distance: float) -> str:
    """How far a gradient is from those that gradients at nearby points tend to."""
    if many == 1:
        return f"Gradients at nearby points all tend to one that lies {distance:.3g} away."
    return (
        f"Gradients at nearby points tend to {many} different ones, and every mixture of these "
        f"lies at least {distance:.3g} away."
    )


class Rungs(Context):
    """The arguments, cheapest first."""

    def limits(self) -> Decision | None:
        """AD's gradient as a limit of gradients along a ray, or a mean of such limits."""
        rest = (self.program, self.gradient, self.relevance, self.generator)
        found = mean_of_limits(*rest, self.plain)
        if found is None:
            found = mean_of_limits(*rest, added(self.rounding.bounds, self.plain))
        if found is None:
            return None
        return self._limits(*found)

    def _limits(
        self, witnesses: tuple[Witness, ...], weights: tuple[float, ...], theorem: str
    ) -> Decision:
        verdict = Verdict.BOULIGAND if len(witnesses) == 1 else Verdict.CLARKE
        return self.accept(verdict, witnesses, weights, theorem, self.along_rays(witnesses))

    def norms(self, otherwise: Decision) -> Decision:
        """The selections of all other kinks, with a ball of slopes at each norm of zero."""
        judged, bounds = self.judged
        found = judge_norms(
            self.within(EXACT_SHARE),
            judged,
            bounds,
            self.generator,
            self.settings.exact,
            otherwise,
        )
        if isinstance(found, Decision):
            run = self.settings.confirm is Confirm.ALWAYS
            proof = found.certificate and found.certificate.argument
            wrong = isinstance(proof, NormSeparation) and not (
                is_rounding(proof, self.rounding)
                or proof.own_defects(self.program, judged, run=run)
            )
            return found if wrong else otherwise
        room = added(bounds, self.plain)
        mean = mean_toward(self.program, self.gradient, found, self.generator, room)
        return otherwise if mean is None else self._limits(*mean)

    def guarded(self, otherwise: Decision) -> Decision:
        """The function beside a guard, whose branch at the point holds nowhere else."""
        judged, _ = self.judged
        found = judge_guard(
            self.program,
            judged,
            self.relevance,
            self.generator,
            otherwise,
            self.program.deadline,
        )
        return found or self.limits() or otherwise

    def smooth(self) -> Decision:
        """No kink matters: the gradient, if it is that of AD's own pieces."""
        direction = random_tangents(self.program, self.generator)
        own = self.own
        if self.differs and (
            self.given or wrong_functions(self.program.analysis) or self.is_torchs_own
        ):
            return self.exact(self.mismatch(own))
        changed = self.differs and not (self.given or self.rounding.drowned(own))
        if not (self.given or changed) and self.rounding.drowned(self.gradient):
            return self.undecided(
                "No kink matters here, but what rounding makes of the gradient is as large as its "
                "terms: digits cancel, as in (exp(x) - 1) / x near 0. Write it so that they do not "
                "(torch.expm1(x) / x), or run the program in a wider type."
            )
        # Opposite rays: a branch that the trace does not show parts them.
        ahead = ray_witness(direction, own)
        back = replace(ahead, direction=tuple(-d for d in direction))
        found = self.accept(Verdict.SMOOTH, (ahead, back), (0.5, 0.5), "no relevant kink")
        return self.changed() if changed and found.verdict is Verdict.UNDECIDED else found

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
            rows=found.rows.numpy(),
            kinks=found.kinks.numpy(),
        )
        decision = self.accept(Verdict.BOULIGAND, (witness,), (1.0,), "bias shift")
        # A direction of very unequal parts may be too rough to confirm; others may do better.
        return decision if decision.verdict is Verdict.BOULIGAND else None

    def on_branch(self) -> Decision:
        """A witness on the side on which Python takes the branch that ran; nothing else is sure."""
        open_ = bool((self.relevance.relevant & self.relevance.mixed).any())
        beyond = self.relevance.hazards or self.relevance.lost_masks
        if not (open_ or beyond or self.differs):
            witness = self._witness()
            if witness is not None:
                return self.accept(Verdict.BOULIGAND, (witness,), (1.0,), "witness")
        return other_side(self.program.analysis)

    def bouligand(self) -> Decision | None:
        """A direction along which AD's own selection is the active one."""
        if int(self.relevance.relevant.sum()) > _MANY:
            shifted = self.shifted()
            if shifted is not None:
                return shifted
            beside = judge_beside_roundings(self)
            if beside is not None:
                return beside
        witness = self._witness()
        if witness is None:
            return judge_beside_roundings(self) if is_large(self.program) else None
        if self.differs:
            return self.exact(self.mismatch(witness.gradient))
        return self.accept(Verdict.BOULIGAND, (witness,), (1.0,), "witness")

    def _witness(self) -> Witness | None:
        """A witness of AD's own selection; None also where no time is left for this rung."""
        try:
            return witness_selection(
                self.within(SEARCH_SHARE),
                {},
                self.relevance.relevant,
                self.settings,
                self.generator,
            )[0]
        except OutOfTimeError:
            return None  # what is left is for the exact answer

    def mixture(self) -> Decision:
        """Directions whose selections' gradients AD's is a mean of."""
        found = self._mixed_by(mix_opposites, "witness") or judge_beside_roundings(self)
        if found is None and is_large(self.program):
            found = self.apart()
        found = found or self._mixed_by(mix_witnesses, "witness")
        found = found or self._mixed_by(mix_directions, "witness")
        return found or self.exact(self.unwitnessed())

    def apart(self) -> Decision | None:
        """What the outer estimate tells of the whole."""
        return self._by_estimate(judge_by_estimate, self.gradient)

    def part(self) -> Decision | None:
        """What the enumeration of small parts tells that the outer estimate tells apart."""
        return self._by_estimate(wrong_part)

    def _by_estimate(self, judge: Callable[..., Decision | None], *more: object) -> Decision | None:
        """What follows from the outer estimate by some argument; each is asked once."""
        if self.outer is None or judge in self._asked:
            return None
        self._asked += (judge,)
        found = judge(
            self.outer,
            self.program,
            *more,
            self.judged,
            self.rounding,
            self.generator,
            confirm=self.settings.confirm is Confirm.ALWAYS,
        )
        return None if found is None else replace(found, relevance=self.relevance)

    def neighbours(self) -> Decision | None:
        """A mixture of selections next to AD's, which is itself active nowhere nearby."""
        if bool((self.relevance.relevant & self.relevance.mixed).any()) or self.relevance.hazards:
            return None
        return self._mixed_by(mix_neighbours, "witness of a neighbour")

    def _mixed_by(self, mix: Callable[..., Mixed | None], alone: str) -> Decision | None:
        """What follows from a mixture; `alone` names the argument where one witness is enough."""
        judged, allowed = self.judged
        try:
            mixed = mix(
                self.within(SEARCH_SHARE),
                judged,
                self.relevance,
                self.settings,
                self.generator,
                flatten(allowed),
            )
        except OutOfTimeError:
            return None
        if mixed is None:
            return None
        if len(mixed[0]) == 1:  # its gradient and AD's differ by no more than rounding
            return self.accept(Verdict.BOULIGAND, *mixed, alone)
        return self.accept(Verdict.CLARKE, *mixed, "mixture of witnesses")

    def exact(self, otherwise: Decision) -> Decision:
        """Enumerate all selections: membership, or a proof that the gradient is wrong."""
        found = self._exact(otherwise)
        if found.verdict is Verdict.UNDECIDED:
            return self.own_formula() or found
        return found

    def _exact(self, otherwise: Decision) -> Decision:
        if is_large(self.program):
            found = self.apart() or self.part()
            if found is not None:
                return found
        program = self.program
        judged, bounds = self.judged
        size = sum(p.numel() for p in program.point)
        kinks = min(self.settings.exact.kinks, self.settings.dense_entries // max(size, 1))
        try:
            exact = enumerate_exactly(
                self.within(EXACT_SHARE), self.generator, replace(self.settings.exact, kinks=kinks)
            )
        except JumpsBesideError as error:
            return replace(
                otherwise,
                verdict=Verdict.NOT_LIPSCHITZ,
                reason=f"{error} There is no Clarke subdifferential here.",
            )
        except BudgetError as error:
            beside = self.neighbours() or self.apart() or self.part()
            if beside is not None:
                return beside
            late = isinstance(error, OutOfTimeError)
            return replace(otherwise, reason=f"{otherwise.reason} {error}", out_of_time=late)
        own = flatten(judged)
        allowed = flatten(bounds) + rounding_of_set(program, exact.limits)
        mixed = mix_cells(exact, program, own, allowed)
        if mixed is not None:
            witnesses, weights = mixed
            if exact.live.branches:  # what a selection is at a step shows beside it only
                witnesses = tuple(ray_witness(w.direction, w.gradient) for w in witnesses)
            verdict = Verdict.BOULIGAND if len(witnesses) == 1 else Verdict.CLARKE
            room = unflatten(flatten(bounds) + rounding_of_selections(program), program.point)
            return self.accept(verdict, witnesses, weights, "exact enumeration", room)
        return self._refuted(exact, own, allowed, otherwise)

    def _refuted(
        self,
        exact: Exact,
        own: NDArray[np.float64],
        allowed: NDArray[np.float64],
        otherwise: Decision,
    ) -> Decision:
        """A proof that a gradient is none of the set, if it is one."""
        program = self.program
        proof = refute(exact, program, own, allowed)
        if proof is None:
            return replace(
                otherwise,
                reason="The gradient is not a combination of limiting gradients that could be "
                "proved, but some selections could be neither proved nor excluded.",
            )
        if is_rounding(proof, self.rounding):
            return replace(
                otherwise,
                reason="The gradient is not a combination of limiting gradients, but misses them "
                f"by {proof.distance:.2g} only, no more than its type can tell apart.",
            )
        vector = unflatten(own, program.point)
        run = self.settings.confirm is Confirm.ALWAYS
        defects = proof.own_defects(program, vector, run=run)
        if defects:
            return self.undecided(f"{Verdict.NOT_CLARKE.so_far}, but: {defects[0]}.")
        culprits = self.responsible(exact, allowed)
        culprits = culprits or wrong_functions(program.analysis)
        formula = () if culprits else name_formula(program, ad_weights(program))
        formula = () if culprits else formula or self.in_doubt()
        culprits = culprits or formula
        correct = nearest_correct(exact, own)
        many = proof.limits.count if proof.limits.count > 4096 else len(proof.points)
        return Decision(
            Verdict.NOT_CLARKE,
            f"{Verdict.NOT_CLARKE.value} {_distance(many, proof.distance)}"
            + "".join(f" {c}." for c in formula[:1]),
            certificate=Certificate(program, vector, proof).sealed(),
            theorem="exact enumeration",
            culprits=culprits,
            analysis=program.analysis,
            relevance=self.relevance,
            cures=hints(program, culprits, lambda g: proof.limits.place(g, allowed).inside),
            element=None if correct is None else unflatten(correct, program.point),
        )
