"""Write an audit's steps into a run folder as they are made."""

from __future__ import annotations

import datetime as dt
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import all_finite
from clarke.report.runs import CulpritRecord, Picture, RunWriter, StepRecord
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke import Audit, Report, Step


def record(audit: Audit, folder: Path | str, settings: Mapping[str, Any]) -> RunWriter:
    """Subscribe a new run folder to an audit; the caller calls its `finish` at the end.

    Args:
        audit: The audit, running or not.
        folder: Where to write; must not hold a run.
        settings: Plain data about the run, kept with what `surroundings` says.

    Raises:
        InputError: The folder holds a run already.
    """
    writer = RunWriter(folder, {**settings, **surroundings()})
    audit.subscribe(
        lambda step, report: writer.write(step_record(step, report)),
        gradients=False,
        begun=lambda number, at: writer.begin(number, at.file, at.line),
        amended=lambda step: writer.amend(step_record(step, None)),
        passed=lambda number, at, why: writer.pass_by(number, at.file, at.line, why),
    )
    return writer


def step_record(step: Step, report: Report | None) -> StepRecord:
    """What is kept of a step."""
    return StepRecord(
        number=step.number,
        verdict=step.verdict,
        reason=step.reason,
        theorem=step.theorem,
        kinks=step.kinks,
        culprits=tuple(
            CulpritRecord(
                c.operation, c.location.module, c.location.file, c.location.line, c.reason
            )
            for c in step.culprits
        ),
        seconds=step.seconds,
        file=step.location.file,
        line=step.location.line,
        group=step.group,
        joint=step.joint,
        joint_reason=step.joint_reason,
        repaired=step.repaired,
        cures=step.cures,
        values="" if report is None or step.repaired else worst_entry(report),
        picture=None if report is None else _picture(report),
        ignored=step.ignored,
        nonfinite=not step.repaired and is_nonfinite(step.verdict, report),
    )


def is_nonfinite(verdict: Verdict | None, report: Report | None) -> bool:
    """Whether a gradient holds NaN or infinity."""
    if verdict is not Verdict.NOT_LIPSCHITZ or report is None:
        return verdict is Verdict.NONFINITE
    return not all_finite(report.gradient)


def worst_entry(report: Report) -> str:
    """What autograd returned where that is farthest from a right gradient, and what is right."""
    if report.element is None or not report.gradient or report.correct:
        return ""
    gaps = torch.cat(
        [
            (g.detach().double() - e.detach().double()).abs().reshape(-1)
            for g, e in zip(report.gradient, report.element, strict=True)
        ]
    ).nan_to_num(nan=math.inf)
    if not gaps.numel():
        return ""
    at = int((gaps * _blame(report, gaps)).nan_to_num(nan=0.0).argmax())
    i = 0
    while at >= report.gradient[i].numel():
        at -= report.gradient[i].numel()
        i += 1
    told = f"returned {_entry(report.gradient[i], at)}, right {_entry(report.element[i], at)}"
    if gaps.numel() > 1:
        told += f" for {_place(report.names, i, report.gradient[i], at)}"
        length = math.sqrt(sum(float(e.detach().double().square().sum()) for e in report.element))
        off = getattr(_argument(report), "distance", float(gaps.norm()))
        if length > 0 and math.isfinite(off):
            told += f"; the whole gradient is off by {_percent(off / length)}"
    return told


def _blame(report: Report, gaps: torch.Tensor) -> torch.Tensor:
    """How much an entry has to do with it: a right gradient may differ in others as well."""
    direction = getattr(_argument(report), "direction", None)
    if direction is None or len(direction) != len(gaps):
        return torch.ones_like(gaps)
    return torch.from_numpy(direction).abs()


def _entry(tensor: torch.Tensor, at: int) -> str:
    value = float(tensor.reshape(-1)[at])
    return "NaN" if math.isnan(value) else f"{value + 0.0:.6g}"


def _place(names: Sequence[str], i: int, tensor: torch.Tensor, at: int) -> str:
    """An entry by its variable's name, else by the variable's number."""
    index: list[str] = []
    for size in reversed(tensor.shape):
        index.append(str(at % size))
        at //= size
    entry = f"[{', '.join(reversed(index))}]" if index else ""
    if i < len(names) and names[i]:
        return f"{names[i]}{entry}"
    whose = "" if len(names) == 1 else f"variable {i}"
    return " of ".join(filter(None, (f"entry {entry}" if entry else "", whose)))


def _percent(share: float) -> str:
    """Two digits, or all before the point."""
    percent = 100 * share
    return (
        "less than 0.01 %"
        if percent < 0.01
        else (f"{percent:,.0f} %" if percent >= 10 else f"{percent:.2g} %")
    )


def surroundings() -> dict[str, Any]:
    """Versions, machine and time: what another run of the same program may differ in."""
    return {
        "clarke": metadata.version("clarke"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "started": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        "working_directory": str(Path.cwd()),
        "interpreter": sys.executable,
    }


def new_folder(name: str, root: Path | str = "runs") -> Path:
    """A folder below `root` that does not exist yet, named after the program, time and rank."""
    now = dt.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    base = of_rank(Path(root) / "-".join(filter(None, [name, now])))
    tries = (base.with_name(f"{base.name}-{i}") if i else base for i in range(10_000))
    return next(folder for folder in tries if not folder.exists())


def rank() -> int:
    """The number of this process among those that a launcher started; 0 without one."""
    number = os.environ.get("RANK", "")
    return int(number) if number.isdecimal() else 0


def of_rank(folder: Path) -> Path:
    """A folder's name for this process: the first has the name itself."""
    return folder.with_name(f"{folder.name}-rank{rank()}") if rank() else folder


def _argument(report: Report) -> object:
    """What the proof of a verdict rests on; None without a proof."""
    return getattr(report.certificate, "argument", None)


def _picture(report: Report) -> Picture | None:
    """Gradient and set of a wrong gradient with respect to at most three numbers."""
    points = getattr(_argument(report), "points", None)
    if report.verdict is not Verdict.NOT_CLARKE or points is None or len(points[0]) > 3:
        return None
    element = None if report.element is None else _numbers(report.element)
    picture = Picture(
        gradient=_numbers(report.gradient),
        vertices=tuple(tuple(float(v) for v in point) for point in points[:512]),
        element=element,
    )
    flat = [*picture.gradient, *(element or ()), *(v for p in picture.vertices for v in p)]
    return picture if all(map(math.isfinite, flat)) else None


def _numbers(tensors: tuple[torch.Tensor, ...]) -> tuple[float, ...]:
    return tuple(float(v) for t in tensors for v in t.detach().reshape(-1).tolist())
