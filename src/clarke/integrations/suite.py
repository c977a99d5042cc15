"""The gradients of a test suite as a file: what `pytest --clarke-record` writes."""

from __future__ import annotations

import json
import linecache
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clarke.report.suites import FORMAT

if TYPE_CHECKING:
    from clarke import Report, Step

_WHOLE = 64  # entries of a gradient that are written as they are
_SUMS = 8  # weighted sums that are written of a longer one


def gradient_data(step: Step, report: Report | None) -> dict[str, Any]:
    """What is kept of a backward call: verdict, choices and values, without numbers of lines."""
    return {
        "verdict": None if step.verdict is None else step.verdict.name,
        "reason": step.reason,
        "called": f"{Path(step.location.file).name}:{step.location.line}",
        "values": [] if report is None else [_values(g) for g in report.gradient],
        "choices": {
            f"{k.operation} at {Path(k.file).name}: "
            f"{linecache.getline(k.file, k.line).strip() or k.line}": k.choice
            for k in step.kinks
        },
    }


def _values(gradient: torch.Tensor) -> dict[str, Any]:
    """A short gradient whole; of a long one weighted sums, which tell it from others."""
    flat = gradient.detach().to(device="cpu", dtype=torch.float64).reshape(-1)
    about = {"shape": list(gradient.shape), "dtype": str(gradient.dtype).removeprefix("torch.")}
    if flat.numel() <= _WHOLE:
        return {**about, "entries": [repr(v) for v in flat.tolist()]}
    places = torch.arange(1, flat.numel() + 1, dtype=torch.float64)
    sums = [float((flat * torch.cos(places * k)).sum()) for k in range(_SUMS)]
    return {**about, "sums": [repr(v) for v in sums], "norm": repr(float(flat.norm()))}


def write_suite(file: Path, tests: dict[str, Any]) -> None:
    """Write the file."""
    data = {
        "clarke_suite": FORMAT,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "tests": dict(sorted(tests.items())),
    }
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
