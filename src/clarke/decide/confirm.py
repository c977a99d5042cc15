"""Confirmation: AD's gradients at ``w + t d``, t decreasing, must tend to what was claimed.

This runs the program's own operations with PyTorch's own derivatives; it shares nothing with the
rules that found the witness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clarke.decide.tolerance import peak, relative_difference
from clarke.errors import OutOfTimeError
from clarke.numerics import (
    CONFIRM_ALIKE,
    CONFIRM_FINER,
    CONFIRM_NEAR,
    CONFIRM_SLOWLY,
    CONFIRM_STEPS,
    CONFIRMED,
    UNIT,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Gradient = Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]

_SHRINKS = 0.2  # an error that tends to zero falls tenfold with a tenfold smaller step
_DECADES = 7  # steps in a row over which an error falls that does so slower than the step
USUAL_FINEST = CONFIRM_STEPS[-1]


@dataclass(frozen=True)
class Confirmation:
    """The outcome: the smallest error reached, and whether two consecutive steps were close."""

    confirmed: bool
    error: float
    step: float

    @property
    def shortcoming(self) -> str:
        """What is missing, as it completes "gradients along a witness"."""
        if self.error > CONFIRM_ALIKE:
            return f"differ from its own by {self.error:.2g}"
        return f"are its own at the distance {self.step:.0e} only, not at those around it"


def confirm(
    gradient: Gradient,
    point: Sequence[torch.Tensor],
    direction: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    tolerance: float = CONFIRMED,
    bounds: Sequence[torch.Tensor] = (),
    finest: float = USUAL_FINEST,
) -> Confirmation:
    """Compare the gradients along a ray with `expected`.

    Args:
        gradient: AD's gradient at a point.
        point: w, one tensor per variable.
        direction: d, likewise.
        expected: What the gradients must tend to.
        tolerance: Difference that counts as equal, relative to the entry.
        bounds: For each entry, an absolute difference that counts as equal.
        finest: The smallest step; below the usual one, what `finest_step` found to be told.
    """
    size = peak(direction)
    scale = peak(point)
    factor = max(scale, 1.0) / size if size > 0 else 1.0
    best, at, close, falling, slowly, last = float("inf"), 0.0, 0, 0, 0, 0.0
    steadily, apart = 0, 0.0
    sizes: tuple[torch.Tensor, ...] = ()
    finer = (s for s in CONFIRM_FINER if s >= finest)
    for step in (*CONFIRM_STEPS, *finer):
        moved = [p + step * factor * d for p, d in zip(point, direction, strict=True)]
        try:
            found = gradient(moved)
        except OutOfTimeError:
            raise
        except (RuntimeError, ValueError):  # the program is not defined there
            close, falling, slowly, last, steadily, apart = 0, 0, 0, 0.0, 0, 0.0
            continue
        # An entry that vanishes in the limit is measured against those further out.
        sizes = sizes or tuple(torch.nan_to_num(f.abs(), 0.0, 0.0).to(torch.float64) for f in found)
        plain = relative_difference(found, expected, sizes)
        # What vanishes at the point may be roundings of the largest entries beside it.
        largest = peak(found)
        least = UNIT * largest if math.isfinite(largest) else 0.0
        granted = bounds or tuple(torch.zeros_like(s) for s in sizes)
        granted = tuple(torch.clamp(b, min=least) for b in granted)
        error = relative_difference(found, expected, sizes, granted)
        # A gradient of NaN is infinitely far away, and so is the next one: that is no approach.
        falls = 0 < last < math.inf and error <= _SHRINKS * last
        falling = falling + 1 if falls else 0
        slowly = slowly + 1 if 0 < last < math.inf and error <= CONFIRM_SLOWLY * last else 0
        last = error
        # Where a slope is huge beside the point and none at it, the error is 1 for long: a guard of
        # 1e-6 under a standard deviation that is zero. Then the differences themselves tell.
        gap = peak([f - e for f, e in zip(found, expected, strict=True)])
        steadily = steadily + 1 if 0 < gap <= _SHRINKS * apart < math.inf else 0
        apart = gap
        if plain < best:
            best, at = plain, step
        close = close + 1 if error <= tolerance else 0
        settled = _DECADES in (steadily, slowly if error <= CONFIRM_NEAR else 0)
        if close == 2 or falling == 3 or settled:
            return Confirmation(True, best, at)
    return Confirmation(False, best, at)
