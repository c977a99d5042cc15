"""The argument of a positive verdict: directions around which gradients add up to the judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.constraints.reads import held_sides
from clarke.decide.allowed import least_bounds, rounding_of_selections
from clarke.decide.certificate import Argument
from clarke.decide.confirm import USUAL_FINEST, confirm
from clarke.decide.exact import lipschitz_around_steps
from clarke.decide.finest import finest_step
from clarke.decide.recomputed import Defect
from clarke.decide.rounding import Rounding
from clarke.decide.tolerance import REPLAY_SPACING, added, coarsest_epsilon, larger, ray_bounds
from clarke.decide.verification import (
    ad_weights,
    check_ray,
    confirmed,
    examine,
    fresh_generator,
    no_more,
    own_gradient,
)
from clarke.feasibility import verify_membership
from clarke.numerics import CONFIRMED, GRANTED, WEIGHTS_CONVEX
from clarke.steering import Pieces, Program, natural_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.decide.confirm import Gradient
    from clarke.decide.model import Witness
    from clarke.decide.verification import Examined

    Tensors = tuple[torch.Tensor, ...]

_LOOKED_AT = 3  # witnesses whose roundings are looked at


@dataclass(frozen=True, eq=False)
class Witnessed(Argument):
    """The gradient is a mean of gradients, each the only one around a direction.

    Attributes:
        witnesses: Directions with their selections (for a smooth point: two opposite rays).
        weights: Their convex weights: the weighted gradients add up to g.
        bounds: For each entry of `gradient`, the absolute error that rounding may have left in it.
        run_gradient: AD's gradient of the user's function at another point, by running it; None
            where only the recorded operations can be run.
        replay_bounds: The same for gradients along the witnesses, if they need one.
        finest: The smallest step along the witnesses (`finest_step`).
    """

    witnesses: tuple[Witness, ...]
    weights: tuple[float, ...]
    bounds: tuple[torch.Tensor, ...]
    run_gradient: Gradient | None = None
    replay_bounds: tuple[torch.Tensor, ...] = ()
    finest: float = USUAL_FINEST
    holds_sides: ClassVar[bool] = True

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Check every witness, the weights, the sum and the bounds; run along the witnesses."""
        generator = fresh_generator()
        value = program.run(pieces=Pieces.NATURAL, grad=False).output
        if not bool(torch.isfinite(value).all()):
            raise Defect("the function's own value is not finite")
        self._check_weights()
        examined = []
        for i, witness in enumerate(self.witnesses):
            try:
                examined.append(examine(program, witness, generator, lipschitz_around_steps))
            except Defect as error:
                raise Defect(f"witness {i}: {error}") from error
        if bool(held_sides(program.analysis).any()) and (
            len(examined) > 1 or examined[0].ray or self.witnesses[0].choices
        ):
            raise Defect("a branch of Python rests on a tie, and a witness may lie across it")
        own = replace(
            self,
            witnesses=tuple(
                replace(w, gradient=e.gradient)
                for w, e in zip(self.witnesses, examined, strict=True)
            ),
        )
        own._check_bounds(program, vector, examined)  # noqa: SLF001 - a copy of this one
        if not own.adds_up(program, vector):
            raise Defect("the witnessed gradients do not add up to the gradient")
        for i, (witness, e) in enumerate(zip(own.witnesses, examined, strict=True)):
            if e.ray and not run:
                raise Defect(f"witness {i}: a limit along a ray is proved by running only")
            if e.ray:
                check_ray(program, witness, self.bounds, generator)
            if run and not any(
                confirmed(
                    program,
                    g,
                    witness,
                    e.gradient,
                    self.replay_bounds,
                    generator,
                    self.finest,
                )
                for g in own.runs(program)
            ):
                raise Defect(f"gradients along witness {i} differ from its own")

    def _check_weights(self) -> None:
        if len(self.weights) != len(self.witnesses) or not self.witnesses:
            raise Defect("weights and witnesses differ in number")
        if not (min(self.weights) >= 0 and abs(sum(self.weights) - 1) <= WEIGHTS_CONVEX):
            raise Defect("the weights are not convex")

    def _check_bounds(
        self, program: Program, vector: Tensors, examined: Sequence[Examined]
    ) -> None:
        """Whether no more counts as rounding than follows from the program.

        Every bound that a certificate carries is recomputed here, and only here.
        """
        if self.finest != USUAL_FINEST and self.finest != self.finest_told(program):
            raise Defect("the steps along the witnesses are smaller than their kinks can see")
        own = own_gradient(program)
        coarse = Rounding(program, own, weights=ad_weights(program))
        coarse.covers(vector)  # where its own formulas give it, what is between is granted
        replay = replay_bounds(program, self.witnesses)
        rays = [w.gradient for w, e in zip(self.witnesses, examined, strict=True) if e.ray]
        least = least_bounds(program, vector, self.witnesses, self.weights)
        most = added(added(coarse.most, replay), least)
        for g in rays:
            most = added(
                most,
                ray_bounds(larger(tuple(t.abs() for t in g), tuple(t.abs() for t in vector))),
            )
        if not no_more(self.bounds, most, GRANTED):
            raise Defect("more counts as rounding than the program can leave")
        if self.replay_bounds and not no_more(
            self.replay_bounds, larger(coarse.most, replay), GRANTED
        ):
            raise Defect("more counts as rounding than the program can leave")
        plain = replace(self, bounds=added(least, replay)).adds_up(program, vector)
        if not (plain or rays) and coarse.vague(vector):
            raise Defect("what rounding can do is too much for the gradient to tell anything")

    def finest_told(self, program: Program) -> float:
        """The smallest step along the witnesses at which running the program tells anything."""
        trace = program.analysis.trace
        spacing = coarsest_epsilon(trace) if self.run_gradient else REPLAY_SPACING
        return max(finest_step(program, w.direction, spacing) for w in self.witnesses)

    def runs(self, program: Program) -> tuple[Gradient, ...]:
        """Ways to AD's gradient at another point, the user's own function first.

        Where the program is not in float64 throughout, values near kinks are rounding: then also
        with untouched elements kept on their recorded side.
        """
        kinds = {d for d in program.analysis.trace.slot_dtypes.values() if d.is_floating_point}
        first = self.run_gradient or (lambda point: natural_gradient(program, point))
        if kinds <= {torch.float64}:
            return (first,)
        return first, lambda point: natural_gradient(program, point, Pieces.HELD)

    def own_defects(self, program: Program, vector: Tensors, *, run: bool) -> tuple[str, ...]:
        """What the judge asks of its own proof: sums, and runs along the witnesses it just found.

        No verification: it believes the rows, and that the kinks are these.
        """
        if not self.adds_up(program, vector):
            return ("the witnessed gradients do not add up to the gradient",)
        for i, w in enumerate(self.witnesses if run else ()):
            rest = (
                program.point,
                w.direction,
                w.gradient,
                CONFIRMED,
                self.replay_bounds,
                self.finest,
            )
            outcome = None
            for gradient in self.runs(program):
                outcome = confirm(gradient, *rest)
                if outcome.confirmed:
                    break
            if outcome is not None and not outcome.confirmed:
                return (f"gradients just beside the point (witness {i}) {outcome.shortcoming}",)
        return ()

    def adds_up(self, program: Program, vector: Tensors) -> bool:
        """Whether the weighted gradients of the witnesses are AD's gradient, up to rounding."""
        points = np.stack([flatten(w.gradient) for w in self.witnesses])
        weights, target = np.asarray(self.weights), flatten(vector)
        allowed = flatten(self.bounds)
        if points.size > 1_000_000:  # exact arithmetic adds nothing to a sum of this size
            return bool((np.abs(weights @ points - target) <= allowed).all())
        deadline = program.deadline
        return verify_membership(points, weights, target, allowed=allowed, deadline=deadline)


def replay_bounds(program: Program, witnesses: Sequence[Witness]) -> tuple[torch.Tensor, ...]:
    """What rounding in float64 can do to gradients of AD's own pieces and those of witnesses."""
    weights = ad_weights(program)
    own = own_gradient(program)
    bounds = larger(
        Rounding(program, own, weights=weights, double=True).bounds,
        unflatten(rounding_of_selections(program), program.point),
    )
    for w in witnesses[:_LOOKED_AT]:
        mixture = None if w.choices else weights
        bounds = larger(
            bounds, Rounding(program, w.gradient, w.choices, mixture, double=True).bounds
        )
    return bounds
