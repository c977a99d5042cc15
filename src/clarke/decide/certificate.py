"""What a positive verdict carries, and the code that re-checks it from scratch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.decide.confirm import USUAL_FINEST, confirm
from clarke.decide.finest import finest_step
from clarke.decide.guards import lipschitz_around_guards
from clarke.decide.model import weighted_sum
from clarke.decide.rounding import rounding_noise
from clarke.decide.tolerance import (
    REPLAY_SPACING,
    SHARE,
    coarsest_epsilon,
    peak,
    relative_difference,
    relative_tolerance,
)
from clarke.decide.verification import (
    Defect,
    Recomputed,
    ad_weights,
    check_ray,
    confirmed,
    examine,
    fresh_generator,
    same_bounds,
)
from clarke.feasibility import verify_membership
from clarke.numerics import WEIGHTS_CONVEX
from clarke.steering import Pieces, Program, natural_gradient

if TYPE_CHECKING:
    from clarke.decide.confirm import Gradient
    from clarke.decide.model import Witness


@dataclass(frozen=True, eq=False)
class Certificate(Recomputed):
    """Proof of a positive verdict.

    Attributes:
        program: What ran.
        gradient: AD's gradient g.
        point: The point w.
        witnesses: Directions with their selections (for a smooth point: two opposite rays).
        weights: Their convex weights: the weighted gradients add up to g.
        tolerance: Relative difference that counts as rounding.
        run_gradient: AD's gradient of the user's function at another point, by running it; None
            where only the recorded operations can be run.
        noise: For each variable, the absolute error that rounding may have left in `gradient`.
        replay_noise: The same for gradients in float64, along the witnesses.
        finest: The smallest step along the witnesses (`finest_step`).
        seal: Binds all of this; see `clarke.decide.verification.seal_of`.
    """

    program: Program
    gradient: tuple[torch.Tensor, ...]
    point: tuple[torch.Tensor, ...]
    witnesses: tuple[Witness, ...]
    weights: tuple[float, ...]
    tolerance: float
    run_gradient: Gradient | None = None
    noise: tuple[float, ...] = ()
    replay_noise: tuple[float, ...] = ()
    finest: float = USUAL_FINEST
    seal: str = ""

    def recompute(self, program: Program, *, run: bool) -> None:
        """Check every witness, the weights, the sum and the bounds; run along the witnesses."""
        generator = fresh_generator()
        if [g.shape for g in self.gradient] != [p.shape for p in self.point]:
            raise Defect("the gradient has another shape than the variables")
        value = program.run(pieces=Pieces.NATURAL, grad=False).output
        if not bool(torch.isfinite(value).all()):
            raise Defect("the function's own value is not finite")
        self._check_weights()
        examined = []
        for i, witness in enumerate(self.witnesses):
            try:
                examined.append(examine(program, witness, generator, lipschitz_around_guards))
            except Defect as error:
                raise Defect(f"witness {i}: {error}") from error
        own = replace(
            self,
            program=program,
            witnesses=tuple(
                replace(w, gradient=e.gradient)
                for w, e in zip(self.witnesses, examined, strict=True)
            ),
        )
        own._check_bounds()  # noqa: SLF001 - a copy of this one
        if not own.adds_up():
            raise Defect("the witnessed gradients do not add up to the gradient")
        for i, (witness, e) in enumerate(zip(own.witnesses, examined, strict=True)):
            if e.ray and not run:
                raise Defect(f"witness {i}: a limit along a ray is proved by running only")
            if e.ray:
                check_ray(program, witness, self.tolerance, generator)
            if run and not any(
                confirmed(
                    program,
                    g,
                    witness,
                    e.gradient,
                    self.tolerance,
                    self.replay_noise,
                    generator,
                    self.finest,
                )
                for g in own.runs()
            ):
                raise Defect(f"gradients along witness {i} differ from its own")

    def _check_weights(self) -> None:
        if len(self.weights) != len(self.witnesses) or not self.witnesses:
            raise Defect("weights and witnesses differ in number")
        if not (min(self.weights) >= 0 and abs(sum(self.weights) - 1) <= WEIGHTS_CONVEX):
            raise Defect("the weights are not convex")

    def _check_bounds(self) -> None:
        """Whether no more counts as rounding than follows from the program.

        Every bound that a certificate carries is recomputed here, and only here.
        """
        program, first = self.program, self.witnesses[0]
        trace = program.analysis.trace
        if self.tolerance != relative_tolerance(trace):
            raise Defect("the tolerance is not that of the program's types")
        if self.finest != USUAL_FINEST and self.finest != self.finest_told():
            raise Defect("the steps along the witnesses are smaller than their kinks can see")
        mixture = None if first.choices else ad_weights(program)
        for noise, spacing in (
            (self.noise, coarsest_epsilon(trace)),
            (self.replay_noise, REPLAY_SPACING),
        ):
            if not noise:
                continue
            allowed = rounding_noise(
                program, first.gradient, first.choices, mixture, epsilon=spacing
            )
            if not same_bounds(noise, allowed):
                raise Defect("more counts as rounding than the program can leave")

    def finest_told(self) -> float:
        """The smallest step along the witnesses at which running the program tells anything."""
        trace = self.program.analysis.trace
        spacing = coarsest_epsilon(trace) if self.run_gradient else REPLAY_SPACING
        return max(finest_step(self.program, w.direction, spacing) for w in self.witnesses)

    def runs(self) -> tuple[Gradient, ...]:
        """Ways to AD's gradient at another point, the user's own function first.

        Where the program is not in float64 throughout, values near kinks are rounding: then also
        with untouched elements kept on their recorded side.
        """
        program = self.program
        kinds = {d for d in program.analysis.trace.slot_dtypes.values() if d.is_floating_point}
        first = self.run_gradient or (lambda point: natural_gradient(program, point))
        if kinds <= {torch.float64}:
            return (first,)
        return first, lambda point: natural_gradient(program, point, Pieces.HELD)

    def own_defects(self, *, run: bool) -> tuple[str, ...]:
        """What the judge asks of its own proof: sums, and runs along the witnesses it just found.

        No verification: it believes the rows, and that the kinks are these.
        """
        if not self.adds_up():
            return ("the witnessed gradients do not add up to the gradient",)
        for i, w in enumerate(self.witnesses if run else ()):
            rest = (
                self.point,
                w.direction,
                w.gradient,
                self.tolerance,
                self.replay_noise,
                self.finest,
            )
            outcome = None
            for gradient in self.runs():
                outcome = confirm(gradient, *rest)
                if outcome.confirmed:
                    break
            if outcome is not None and not outcome.confirmed:
                return (f"gradients along witness {i} {outcome.shortcoming}",)
        return ()

    def adds_up(self) -> bool:
        """Whether the weighted gradients of the witnesses are AD's gradient, up to rounding."""
        sums = weighted_sum([w.gradient for w in self.witnesses], self.weights)
        size = max(peak(w.gradient) for w in self.witnesses)
        if relative_difference(sums, self.gradient, SHARE * size, self.noise) > self.tolerance:
            return False
        points = np.stack([flatten(w.gradient) for w in self.witnesses])
        if points.size > 1_000_000:  # exact arithmetic adds nothing to a sum of this size
            return True
        weights = np.asarray(self.weights)
        target = flatten(self.gradient)
        if any(self.noise):
            # Entries that differ by rounding noise only count as equal.
            noise = np.repeat(self.noise, [g.numel() for g in self.gradient])
            exact = flatten(sums)
            target = np.where(np.abs(target - exact) <= noise, exact, target)
        return bool(verify_membership(points, weights, target, max(self.tolerance, 1e-9)))
