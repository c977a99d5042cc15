"""A report as plain text, at most 80 columns where the user's own names allow."""

from __future__ import annotations

import textwrap
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from clarke.capture import Location
    from clarke.report.model import KinkSummary, Report

_SHOWN = 8


def report_text(report: Report) -> str:
    """Verdict, reason, gradient, witness and the touched kinks."""
    lines = [f"{report.verdict.name}: {report.reason}"]
    lines = textwrap.wrap(lines[0], 80, break_long_words=False, break_on_hyphens=False)
    lines += _field("gradient", tensors_text(report.gradient))
    if report.element is not None:
        lines += _field("valid", tensors_text(report.element))
    if report.correct is False:
        places = dict.fromkeys(f"{c.operation} at {_place(c.location)}" for c in report.culprits)
        lines += _field("because", f"these disagree: {', '.join(list(places)[:_SHOWN])}")
    certificate = report.certificate
    witnesses = certificate.witnesses if certificate else ()
    weights = certificate.weights if certificate else ()
    for witness, weight in zip(witnesses, weights, strict=True):
        if len(witness.rows) == 0:
            continue
        share = f"weight {weight:.3g}, " if len(weights) > 1 else ""
        lines += _field(
            "witness",
            f"{share}direction {tensors_text(witness.direction)}, {len(witness.rows)} rows",
        )
    if report.kinks:
        total = sum(k.elements for k in report.kinks)
        lines.append(f"  kinks     {report.touched} touched of {total} elements")
        lines += [f"    {kink_text(k)}" for k in report.kinks[:_SHOWN]]
        if len(report.kinks) > _SHOWN:
            lines.append(f"    and {len(report.kinks) - _SHOWN} more operations")
    lines += [line for n in report.notes for line in _field("note", n)]
    return "\n".join(lines)


def _field(name: str, text: str) -> list[str]:
    """A labelled entry, wrapped under its own beginning."""
    return textwrap.wrap(
        text,
        80,
        initial_indent=f"  {name:<10}",
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _place(where: Location | KinkSummary) -> str:
    """Module path and line, with the file's name only."""
    place = f"{PurePath(where.file).name}:{where.line}"
    return f"{where.module} ({place})" if where.module else place


def kink_text(kink: KinkSummary) -> str:
    """One line for the kinks of one operation."""
    where = _place(kink)
    relevant = "" if kink.relevant is None else f", {kink.relevant} relevant"
    return f"{kink.operation} at {where}: {kink.touched} touched{relevant}; AD: {kink.choice}"


def tensors_text(tensors: Sequence[torch.Tensor]) -> str:
    """Short tensors in full, long ones by shape; an audit copies no gradients of common steps."""
    return ", ".join(_tensor_text(t) for t in tensors) or "(not copied)"


def _tensor_text(tensor: torch.Tensor) -> str:
    if tensor.numel() > _SHOWN:
        return f"<{'x'.join(map(str, tensor.shape))}>"
    if tensor.dim() == 0:
        return _number(tensor.item())
    return "[" + ", ".join(_number(v) for v in tensor.reshape(-1).tolist()) + "]"


def _number(value: float) -> str:
    """Six digits; zero without a sign, which says nothing about a gradient."""
    return f"{value or 0.0:.6g}"
