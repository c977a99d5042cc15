"""What a verdict carries, and the code that re-checks it from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.decide.confirm import USUAL_FINEST, confirm
from clarke.decide.tolerance import SHARE, peak, relative_difference
from clarke.feasibility import verify_membership, verify_witness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.decide.confirm import Gradient
    from clarke.decide.model import Witness


@dataclass(frozen=True, eq=False)
class Certificate:
    """Proof of a positive verdict.

    Attributes:
        gradient: AD's gradient g.
        point: The point w.
        witnesses: Directions with their selections (for a smooth point: one, without rows).
        weights: Their convex weights: the weighted gradients add up to g.
        tolerance: Relative difference that counts as rounding.
        run_gradient: AD's gradient of the program at another point.
        held_gradient: The same with untouched elements kept on their recorded side, for programs
            in less than float64, whose values near kinks are rounding.
        noise: For each variable, the absolute error that rounding may have left in `gradient`.
        replay_noise: The same for gradients in float64, along the witnesses.
        finest: The smallest step along the witnesses (`finest_step`).
    """

    gradient: tuple[torch.Tensor, ...]
    point: tuple[torch.Tensor, ...]
    witnesses: tuple[Witness, ...]
    weights: tuple[float, ...]
    tolerance: float
    run_gradient: Gradient
    held_gradient: Gradient | None = None
    noise: tuple[float, ...] = ()
    replay_noise: tuple[float, ...] = ()
    finest: float = USUAL_FINEST

    def verify(self, *, run: bool = True) -> bool:
        """Check everything again: rows in exact arithmetic, weights, sum, and runs of the program.

        Args:
            run: Also run the program along every witness.
        """
        return not self.defects(run=run)

    def defects(self, *, run: bool = True) -> tuple[str, ...]:
        """What is wrong with the certificate, in words; empty when it holds."""
        found = [
            f"the rows of witness {i} are not all positive"
            for i, w in enumerate(self.witnesses)
            if not self._rows_hold(w)
        ]
        if len(self.weights) != len(self.witnesses) or not self.witnesses:
            return (*found, "weights and witnesses differ in number")
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-9:
            found.append("the weights are not convex")
        if not self.adds_up():
            found.append("the witnessed gradients do not add up to the gradient")
        if run and not found:
            for i, w in enumerate(self.witnesses):
                rest = (
                    self.point,
                    w.direction,
                    w.gradient,
                    self.tolerance,
                    self.replay_noise,
                    self.finest,
                )
                outcome = confirm(self.run_gradient, *rest)
                if not outcome.confirmed and self.held_gradient is not None:
                    outcome = confirm(self.held_gradient, *rest)
                if not outcome.confirmed:
                    found.append(f"gradients along witness {i} {outcome.shortcoming}")
        return tuple(found)

    @staticmethod
    def _rows_hold(witness: Witness) -> bool:
        return len(witness.rows) == 0 or verify_witness(witness.rows, witness.coefficients)

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


def weighted_sum(
    gradients: Sequence[Sequence[torch.Tensor]], weights: Sequence[float]
) -> tuple[torch.Tensor, ...]:
    """The weighted sum of gradients, tensor by tensor."""
    return tuple(
        sum((w * part for w, part in zip(weights, parts, strict=True)), torch.zeros_like(parts[0]))
        for parts in zip(*gradients, strict=True)
    )
