"""Turn a decision into a report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from clarke.kinks import choice_text, slopes_taken
from clarke.report.model import KinkSummary, Report
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.decide import Culprit, Decision, TouchCount
    from clarke.kinks import Touch
    from clarke.steering import Analysis

_FEW = 4  # touched elements that are listed


def build_report(
    decision: Decision, gradient: Sequence[torch.Tensor], seconds: float = 0.0
) -> Report:
    """The report of a decision about `gradient` that took some seconds."""
    relevant = None if decision.relevance is None else decision.relevance.relevant
    kinks: tuple[KinkSummary, ...] = ()
    if decision.analysis is not None:
        kinks = summarise_kinks(decision.analysis, relevant, decision.rounded)
    kinks = kinks or summarise_counts(decision.counts)
    if decision.verdict in (Verdict.NONFINITE, Verdict.NOT_LIPSCHITZ):
        kinks = _with_those_at_fault(kinks, decision.culprits)
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
        cures=decision.cures,
        seconds=seconds,
        out_of_time=decision.out_of_time,
    )


def _with_those_at_fault(
    kinks: Sequence[KinkSummary], culprits: Sequence[Culprit]
) -> tuple[KinkSummary, ...]:
    """Kinks of operations that made NaN or infinity, or a jump, matter: all that are touched."""
    named = {(c.operation, c.location.file, c.location.line) for c in culprits}
    return tuple(
        replace(k, relevant=k.touched)
        if k.relevant is None and (k.operation, k.file, k.line) in named
        else k
        for k in kinks
    )


def summarise_kinks(
    analysis: Analysis, relevant: torch.Tensor | None, rounded: torch.Tensor | None = None
) -> tuple[KinkSummary, ...]:
    """Touched kinks by operation and place, in evaluation order."""
    found: dict[tuple[str, str, str, int], KinkSummary] = {}
    for site in analysis.ordered():
        touch = site.touch
        if touch.count == 0:
            continue
        where = touch.location
        key = (touch.op.shown, where.module, where.file, where.line)
        own, by_rounding = (
            None if among is None else int(among[site.first : site.first + touch.count].sum())
            for among in (relevant, rounded)
        )
        new = KinkSummary(
            *key,
            elements=max(touch.base.numel(), touch.count),
            touched=touch.count,
            relevant=own,
            choice=choice_text(touch),
            slopes=slopes_taken(touch),
            at=_few(touch),
            rounded=by_rounding,
        )
        found[key] = new if key not in found else _merged(found[key], new)
    return tuple(found.values())


def _few(touch: Touch) -> tuple[int, ...]:
    """Which elements are touched, where only a few of them are."""
    few = touch.count <= _FEW and touch.count < touch.base.numel()
    return tuple(touch.elements.tolist()) if few else ()


def summarise_counts(counts: Sequence[TouchCount]) -> tuple[KinkSummary, ...]:
    """The same from counts alone."""
    found: dict[tuple[str, str, str, int], KinkSummary] = {}
    for count in counts:
        if count.touched == 0:
            continue
        where = count.op.location
        key = (count.op.shown, where.module, where.file, where.line)
        choice = count.choice or "autograd took one of the tied elements"
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
        rounded=_sum(old.rounded, new.rounded),
        slopes=tuple(sorted({*old.slopes, *new.slopes})),
        at=old.at if old.at == new.at else (),
    )


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
