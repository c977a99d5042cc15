"""Turn a decision into a report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from clarke.report.model import KinkSummary, Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.decide import Decision, TouchCount
    from clarke.kinks import Touch
    from clarke.steering import Analysis

_SHOWN = 4
_EQUAL = 1e-6  # weights are measured: no nearer to each other than roundings
_ORDINALS = ("first", "second")


def build_report(
    decision: Decision, gradient: Sequence[torch.Tensor], seconds: float = 0.0
) -> Report:
    """The report of a decision about `gradient` that took some seconds."""
    relevant = None if decision.relevance is None else decision.relevance.relevant
    kinks = () if decision.analysis is None else summarise_kinks(decision.analysis, relevant)
    kinks = kinks or summarise_counts(decision.counts)
    return Report(
        verdict=decision.verdict,
        reason=decision.reason,
        gradient=tuple(gradient),
        kinks=kinks,
        certificate=decision.certificate,
        theorem=decision.theorem,
        culprits=decision.culprits,
        element=decision.element,
        notes=decision.notes,
        seconds=seconds,
        out_of_time=decision.out_of_time,
    )


def summarise_kinks(analysis: Analysis, relevant: torch.Tensor | None) -> tuple[KinkSummary, ...]:
    """Touched kinks by operation and place, in evaluation order."""
    found: dict[tuple[str, str, str, int], KinkSummary] = {}
    for site in analysis.ordered():
        touch = site.touch
        if touch.count == 0:
            continue
        where = touch.location
        key = (touch.op.shown, where.module, where.file, where.line)
        own = None
        if relevant is not None:
            own = int(relevant[site.first : site.first + touch.count].sum())
        new = KinkSummary(
            *key,
            elements=max(touch.base.numel(), touch.count),
            touched=touch.count,
            relevant=own,
            choice=choice_text(touch),
            slopes=slopes_taken(touch),
        )
        found[key] = new if key not in found else _merged(found[key], new)
    return tuple(found.values())


def summarise_counts(counts: Sequence[TouchCount]) -> tuple[KinkSummary, ...]:
    """The same from counts alone."""
    found: dict[tuple[str, str, str, int], KinkSummary] = {}
    for count in counts:
        if count.touched == 0:
            continue
        where = count.op.location
        key = (count.op.shown, where.module, where.file, where.line)
        choice = "autograd took one of the tied elements"
        if count.touch is not None:
            choice = choice_text(count.touch)
        new = KinkSummary(
            *key, count.elements, count.touched, count.relevant, choice, count.nonzero
        )
        found[key] = new if key not in found else _merged(found[key], new)
    return tuple(found.values())


def _merged(old: KinkSummary, new: KinkSummary) -> KinkSummary:
    """Two operations of one line of code as one."""
    choices = (old.choice,) if old.choice == new.choice else (old.choice, new.choice)
    return replace(
        new,
        elements=old.elements + new.elements,
        touched=old.touched + new.touched,
        relevant=_sum(old.relevant, new.relevant),
        choice="; ".join(choices),
        nonzero=_sum(old.nonzero, new.nonzero),
        slopes=tuple(sorted({*old.slopes, *new.slopes})),
    )


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def choice_text(touch: Touch) -> str:
    """What autograd chose at the touched kinks, in words."""
    if touch.hazards:
        return next(iter(touch.hazards)).value
    sizes = torch.bincount(touch.owner, minlength=touch.count)
    even = (touch.weights * sizes[touch.owner] - 1.0).abs() <= _EQUAL
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
    shares = weights[weights > _EQUAL].unique().tolist()
    shown = ", ".join(f"{s:.4g}" for s in shares[:_SHOWN])
    return f"mixed the slopes with weights {shown}"
