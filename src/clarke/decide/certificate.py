"""What a verdict carries, and the code that re-checks it from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.decide.confirm import confirm
from clarke.feasibility import verify_membership, verify_witness
from clarke.numerics import CONFIRMED

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
        bounds: For each entry of `gradient`, the absolute error that rounding may have left in it.
        run_gradient: AD's gradient of the program at another point.
        held_gradient: The same with untouched elements kept on their recorded side, for programs
            in less than float64, whose values near kinks are rounding.
        replay_bounds: The same for gradients along the witnesses.
    """

    gradient: tuple[torch.Tensor, ...]
    point: tuple[torch.Tensor, ...]
    witnesses: tuple[Witness, ...]
    weights: tuple[float, ...]
    bounds: tuple[torch.Tensor, ...]
    run_gradient: Gradient
    held_gradient: Gradient | None = None
    replay_bounds: tuple[torch.Tensor, ...] = ()

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
                rest = (self.point, w.direction, w.gradient, CONFIRMED, self.replay_bounds)
                outcome = confirm(self.run_gradient, *rest)
                if not outcome.confirmed and self.held_gradient is not None:
                    outcome = confirm(self.held_gradient, *rest)
                if not outcome.confirmed:
                    found.append(
                        f"gradients along witness {i} differ from its own by {outcome.error:.1e}"
                    )
        return tuple(found)

    @staticmethod
    def _rows_hold(witness: Witness) -> bool:
        return len(witness.rows) == 0 or verify_witness(witness.rows, witness.coefficients)

    def adds_up(self) -> bool:
        """Whether the weighted gradients of the witnesses are AD's gradient, up to rounding."""
        points = np.stack([flatten(w.gradient) for w in self.witnesses])
        weights, target = np.asarray(self.weights), flatten(self.gradient)
        allowed = flatten(self.bounds)
        if points.size > 1_000_000:  # exact arithmetic adds nothing to a sum of this size
            return bool((np.abs(weights @ points - target) <= allowed).all())
        return bool(verify_membership(points, weights, target, allowed=allowed))


def weighted_sum(
    gradients: Sequence[Sequence[torch.Tensor]], weights: Sequence[float]
) -> tuple[torch.Tensor, ...]:
    """The weighted sum of gradients, tensor by tensor."""
    return tuple(
        sum((w * part for w, part in zip(weights, parts, strict=True)), torch.zeros_like(parts[0]))
        for parts in zip(*gradients, strict=True)
    )
