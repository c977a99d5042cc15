"""A report as plain text."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from clarke.decide.tolerance import peak
from clarke.layout import Line
from clarke.report.phrases import likely, several

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from clarke.capture import Location
    from clarke.decide import Culprit
    from clarke.report.model import KinkSummary, Report

_SHOWN = 8
_LEAST_SHARE = 1e-9


def report_lines(report: Report) -> list[Line]:
    """Verdict, reason, gradient, witness and the touched kinks."""
    reason = _files_by_name(report)
    lines = [Line(f"{report.verdict.name}: {reason}")]
    lines += _field("gradient", tensors_text(report.gradient))
    if report.element is not None:
        lines += _field("valid", tensors_text(report.element))
    if report.correct is False:
        lines += _field("because", f"these disagree: {places_text(report.culprits)}")
    lines += _witnesses(report)
    if report.kinks:
        total = sum(k.elements for k in report.kinks)
        elements = f"{total} element{'s' * (total != 1)}"
        lines += _field("kinks", f"{report.touched} touched of {elements}")
        for kink in report.kinks[:_SHOWN]:
            lines.append(Line(kink_text(kink), " " * 4, " " * 6))
        if len(report.kinks) > _SHOWN:
            lines.append(Line(f"and {len(report.kinks) - _SHOWN} more operations", " " * 4))
    for letter, cause in zip("abc", likely(report.verdict, report.reason), strict=False):
        lines += _field("perhaps" if letter == "a" else "", f"({letter}) {cause}")
    lines += [line for c in report.cures for line in _field("instead", c)]
    lines += [line for n in report.notes for line in _field("note", n)]
    return lines


def _witnesses(report: Report) -> list[Line]:
    """Where the gradients are that prove a right one: in which direction from the point."""
    certificate = report.certificate
    if certificate is None:
        return []
    lines: list[Line] = []
    pairs = zip(certificate.witnesses, certificate.weights, strict=True)
    # A weight that is a rounding says nothing; `to_dict` has them all.
    shown = [(w, share) for w, share in pairs if len(w.rows) and share > _LEAST_SHARE]
    for witness, share in shown[:_SHOWN]:
        towards = f"towards {tensors_text(_rounded(witness.direction))}"
        text = f"just beside the point, {towards}, the gradient is this one"
        if len(shown) > 1:
            text = f"{share:.3g} of {tensors_text(witness.gradient)}, the gradient {towards}"
        lines += _field("witness", text)
    if len(shown) > _SHOWN:
        lines += _field("", f"and {len(shown) - _SHOWN} more directions")
    return lines


def _rounded(direction: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A direction without entries that are roundings beside its largest."""
    largest = peak(direction)
    return [d.where(d.abs() > _LEAST_SHARE * largest, 0 * d) for d in direction]


def places_text(culprits: Sequence[Culprit]) -> str:
    """Operations by place: "both relus at line 7" where one line has two."""
    places = Counter(f"{c.operation} at {_place(c.location)}" for c in culprits)
    shown = []
    for place, count in list(places.items())[:_SHOWN]:
        name, _, where = place.partition(" at ")
        shown.append(f"{several(name, count)} at {where}")
    return ", ".join(shown)


def _field(name: str, text: str) -> list[Line]:
    """A labelled entry, wrapped under its own beginning."""
    return [Line(text, f"  {name:<10}", " " * 12)]


def _place(where: Location | KinkSummary) -> str:
    """Module path and line, with the file's name only."""
    place = f"{PurePath(where.file).name}:{where.line}"
    return f"{where.module} ({place})" if where.module else place


def _files_by_name(report: Report) -> str:
    """The reason, with files named as in the lines below it."""
    reason = report.reason
    for file in {c.location.file for c in report.culprits}:
        reason = reason.replace(f"{file}:", f"{PurePath(file).name}:")
    return reason


def kink_text(kink: KinkSummary) -> str:
    """One line for the kinks of one operation."""
    where = _place(kink)
    relevant = "" if kink.relevant is None else f", {kink.relevant} relevant"
    relevant += f" ({kink.rounded} by rounding alone)" if kink.rounded else ""
    slopes = ""
    if kink.slopes:
        many = "slopes" if len(kink.slopes) > 1 else "slope"
        slopes = f": {many} {', '.join(_number(v) for v in kink.slopes[:_SHOWN])}"
    many = "elements" if len(kink.at) > 1 else "element"
    at = f" ({many} {', '.join(map(str, kink.at))})" if kink.at else ""
    touched = f"{kink.touched} touched{at}{relevant}"
    return f"{kink.operation} at {where}: {touched}; {kink.choice}{slopes}"


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
