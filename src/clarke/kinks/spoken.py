"""What autograd chose at touched kinks, in words: sides, slopes, shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.numerics import SLOPE_SINGLE

if TYPE_CHECKING:
    from clarke.kinks.model import Touch

_SHOWN = 4
_ORDINALS = ("first", "second")


def choice_text(touch: Touch) -> str:
    """What autograd chose at the touched kinks, in words."""
    if touch.hazards:
        return next(iter(touch.hazards)).value
    sizes = torch.bincount(touch.owner, minlength=touch.count)
    even = (touch.weights * sizes[touch.owner] - 1.0).abs() <= SLOPE_SINGLE
    shared = torch.ones(touch.count, dtype=torch.bool)
    shared[touch.owner[~even]] = False  # weights are measured, equal ones up to roundings
    mixed = touch.mixed()
    parts = [
        _selected(touch, ~mixed, sizes),
        _shared(touch, mixed & shared, sizes),
        _weighed(touch, mixed & ~shared),
    ]
    return "autograd " + " and ".join(p for p in parts if p)


def _selected(touch: Touch, kinks: torch.Tensor, sizes: torch.Tensor) -> str:
    """Of the kinks (K,) bool at which it took one piece: which."""
    if not bool(kinks.any()):
        return ""
    if touch.base.dtype == torch.int64:
        return "took one of the tied elements"
    if touch.returned is None:
        return "followed the value that ran"
    if _slope(touch) is not None:
        return f"took {_side(touch, kinks, sizes)}"
    slopes = touch.returned[:, kinks]
    if len(slopes) == 2 and bool((slopes.amax(0) == 1).all() & (slopes.amin(0) == 0).all()):
        return "took " + " or ".join(
            f"the {_ORDINALS[i]} argument" for i in slopes.argmax(0).unique()
        )
    pieces = touch.chosen()[kinks].unique().tolist()
    return "took piece " + ", ".join(str(p) for p in pieces[:_SHOWN])


def slopes_taken(touch: Touch) -> tuple[float, ...]:
    """A few of the derivatives that it took, where one argument alone varies."""
    slope = None if touch.hazards else _slope(touch)
    # + 0.0 takes the sign of zero away, which says nothing about a slope.
    return () if slope is None else tuple((slope + 0.0).unique()[:_SHOWN].tolist())


def _slope(touch: Touch) -> torch.Tensor | None:
    """(K,) what it took for the derivative, where one argument alone varies."""
    if touch.returned is None:
        return None
    if len(touch.returned) == 1:
        return touch.returned[0]
    return touch.returned[0] if touch.op.varied == {0} else None


def _side(touch: Touch, kinks: torch.Tensor, sizes: torch.Tensor) -> str:
    """The side of the kink on which the piece lies: pieces ascend with the first argument."""
    first = torch.zeros_like(sizes)
    first[1:] = sizes.cumsum(0)[:-1]
    left = (touch.chosen() == touch.members[first])[kinks]
    if touch.op.varied != {0} or bool((sizes[kinks] != 2).any()) or left.unique().numel() != 1:
        return "one of the sides"
    return "the left side" if bool(left[0]) else "the right side"


def _shared(touch: Touch, kinks: torch.Tensor, sizes: torch.Tensor) -> str:
    """Of the kinks (K,) bool at which all pieces have equal weights: what that gives."""
    if not bool(kinks.any()):
        return ""
    many = "both" if bool((sizes[kinks] == 2).all()) else "all"
    if touch.base.dtype == torch.int64:
        return f"shared the slope equally among {many} tied elements"
    if _slope(touch) is not None:
        return f"took the mean of {many} sides"
    return f"took the mean of {many} slopes"


def _weighed(touch: Touch, kinks: torch.Tensor) -> str:
    """Of the kinks (K,) bool at which the pieces have other weights: these."""
    if not bool(kinks.any()):
        return ""
    weights = touch.weights[kinks[touch.owner]]
    shares = weights[weights > SLOPE_SINGLE].unique().tolist()
    shown = ", ".join(f"{s:.4g}" for s in shares[:_SHOWN])
    return f"mixed the slopes with weights {shown}"
