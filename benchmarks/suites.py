"""Losses and layers of ten libraries under both gradchecks: `make field-suites` writes the page.

    python benchmarks/suites.py [--only NAME,NAME] [--seconds S] [--out PAGE]

The programs stand in `benchmarks/field_suites`, a module for each library: at a random point, at
zeros and at equal entries. For each: the verdict on the gradient of a weighted sum of the outputs,
`torch.autograd.gradcheck` and `clarke.testing.gradcheck` on the outputs, and their processor times.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import clarke
from clarke.testing import gradcheck

sys.path.insert(0, str(Path(__file__).parent))

FOLDER = Path(__file__).parent / "field_suites"
_PATH = re.compile(r"(?<![\w.])/(?:[\w.-]+/)+")  # a path of this machine tells nobody anything
Row = dict[str, Any]
_ABOUT = """\
Programs that call public losses and layers of other libraries as their documentation does, at a
random point, at zeros and at equal entries. `make field-suites` installs the libraries, at pinned
versions, into an environment of its own and writes this page. torch {torch}, float64, at most
{seconds:g} s a check. *Gradients* are those of one weighted sum of the outputs, at points where the
program gives finite values; *time* is the processor time of `clarke.testing.gradcheck` divided by
that of `torch.autograd.gradcheck`, over all points of a library. Programs of libraries that are
not in the table (`--only`) have not been run."""


def outputs(function: Any) -> Any:
    """A function that returns one tensor of what a program returns."""

    def first(*inputs: torch.Tensor) -> torch.Tensor:
        result = function(*inputs)
        return result if isinstance(result, torch.Tensor) else result[0]

    return first


def summed(function: Any) -> Any:
    """A weighted sum of a program's outputs, with weights that no symmetry cancels."""

    def total(*inputs: torch.Tensor) -> torch.Tensor:
        result = function(*inputs)
        weights = torch.sin(1 + torch.arange(result.numel(), dtype=result.dtype))
        return (result * weights.reshape(result.shape)).sum()

    return total


def tested(test: Any, function: Any, inputs: Any, **options: Any) -> tuple[str, float]:
    """Why a test fails, empty if it does not; and processor seconds."""
    start = time.process_time()
    try:
        test(function, inputs, **options)
    except Exception as error:  # noqa: BLE001 - whatever a test raises is its answer
        return " ".join(str(error).split()) or type(error).__name__, time.process_time() - start
    return "", time.process_time() - start


def judged(program: Any, point: str, seconds: float) -> Row | None:
    """What all three say of a program at a point; None where it has no gradient there to judge."""
    function = outputs(program.function)
    try:
        result = function(*program.at(point))
        usable = result.requires_grad and bool(result.isfinite().all())
    except Exception:  # noqa: BLE001 - it refuses the point
        usable = False
    if not usable:
        return None
    row: Row = {"program": program.name, "point": point, "kinks": ""}
    try:
        report = clarke.check(summed(function), program.at(point), seconds=seconds)
        kinks = dict.fromkeys(k.operation for k in report.kinks if k.touched)
        row |= {"verdict": report.verdict.name, "reason": report.reason}
        row["kinks"] = ", ".join(kinks)
    except Exception as error:  # noqa: BLE001 - a fault of ours, which the page has to show
        row |= {"verdict": "CRASH", "reason": f"{type(error).__name__}: {error}"}
    theirs, plain = tested(torch.autograd.gradcheck, function, program.at(point))
    ours, own = tested(gradcheck, function, program.at(point), seconds=seconds)
    return row | {"theirs": theirs, "ours": ours, "times": [plain, own]}


def of_library(name: str, seconds: float) -> list[Row]:
    """All rows of a library, in this process."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        programs = importlib.import_module(f"field_suites.{name}").PROGRAMS
        found = (judged(p, point, seconds) for p in programs for point in p.points)
        return [row for row in found if row is not None]


def explained(row: Row) -> str:
    """Why the two tests do not agree, in one sentence that the row's own verdict gives."""
    verdict, kinks = row["verdict"], row["kinks"] or "no kink"
    if row["theirs"] and verdict in ("BOULIGAND", "CLARKE", "SMOOTH"):
        return f"{verdict} at {kinks}: the gradient is right; differences from two sides disagree."
    if verdict == "NOT_CLARKE":
        return f"Wrong at {kinks}; differences from two sides agree with it by symmetry."
    said = _PATH.sub("", row["ours"] or row["reason"])
    return f"{verdict} at {kinks}: {said[:300]}"


def table(found: dict[str, list[Row]]) -> str:
    """Figures by library."""
    lines = [
        (
            "| library | programs | gradients | undecided | surrogate | wrong | both pass "
            "| both fail | ours alone passes | torch's alone passes | time |"
        ),
        "|---|" + "---|" * 10,
    ]
    whole = [r for rows in found.values() for r in rows]
    for name, rows in (*found.items(), ("all", whole)):
        verdicts = Counter(r["verdict"] for r in rows)
        passed = Counter((not r["ours"], not r["theirs"]) for r in rows)
        plain, own = (sum(r["times"][i] for r in rows) for i in (0, 1))
        shares = [
            f"{100 * verdicts[v] / max(len(rows), 1):.1f} %" for v in ("UNDECIDED", "SURROGATE")
        ]
        cells = [
            name,
            str(len({(r["program"]) for r in rows})),
            str(len(rows)),
            *shares,
            str(verdicts["NOT_CLARKE"]),
            *(str(passed[p]) for p in ((True, True), (False, False), (True, False), (False, True))),
            f"{own / max(plain, 1e-9):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(found: dict[str, list[Row]], seconds: float) -> str:
    """The whole page."""
    differ = [
        f"| {name} | `{r['program']}` | {r['point']} | {'passes' if not r['ours'] else 'fails'} | "
        f"{'passes' if not r['theirs'] else 'fails'} | {_cell(explained(r))} |"
        for name, rows in found.items()
        for r in rows
        if bool(r["ours"]) is not bool(r["theirs"])
    ]
    opened = [
        f"| {name} | `{r['program']}` | {r['point']} | {r['verdict']} | {_cell(r['reason'])} |"
        for name, rows in found.items()
        for r in rows
        if r["verdict"] in ("UNDECIDED", "SURROGATE", "CRASH")
    ]
    wrong = [
        f"| {name} | `{r['program']}` | {r['point']} | {r['kinks'] or '-'} |"
        for name, rows in found.items()
        for r in rows
        if r["verdict"] == "NOT_CLARKE"
    ]
    return "\n".join(
        (
            "# Losses and layers of other libraries",
            "",
            _ABOUT.format(torch=torch.__version__.partition("+")[0], seconds=seconds),
            "",
            table(found),
            "",
            "## Where the two tests differ",
            "",
            "| library | program | point | ours | torch's | why |",
            "|---|---|---|---|---|---|",
            *differ,
            "",
            "## Wrong gradients",
            "",
            "| library | program | point | kinks |",
            "|---|---|---|---|",
            *wrong,
            "",
            "## Neither proved right nor wrong, or meant otherwise",
            "",
            "| library | program | point | verdict | reason |",
            "|---|---|---|---|---|",
            *opened,
            "",
        )
    )


def _cell(text: str) -> str:
    text = _PATH.sub("", " ".join(text.replace("|", "\\|").split()))
    return text if len(text) < 400 else f"{text[:400]}..."


def main() -> None:
    """Run every library in a process of its own, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="modules of field_suites, with commas")
    parser.add_argument("--library", default="", help="run one of them here, and print rows")
    parser.add_argument("--seconds", type=float, default=5.0, help="limit of each check")
    parser.add_argument("--out", type=Path, help="where the page goes, written after each library")
    options = parser.parse_args()
    if options.library:
        rows = of_library(options.library, options.seconds)
        print(json.dumps(rows))
        return
    chosen = [n for n in options.only.split(",") if n]
    names = chosen or sorted(p.stem for p in FOLDER.glob("[a-z]*.py"))
    found: dict[str, list[Row]] = {}
    for name in names:
        words = [sys.executable, "-W", "ignore", __file__, "--library", name]
        words += ["--seconds", str(options.seconds)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        library, _, version = name.rpartition("_")[0].rpartition("_")
        found[f"{library} {version}.{name.rpartition('_')[2]}"] = json.loads(done.stdout)
        print(name, len(found), "of", len(names), file=sys.stderr, flush=True)
        if options.out is not None:
            options.out.write_text(page(found, options.seconds))
    if options.out is None:
        print(page(found, options.seconds))


if __name__ == "__main__":
    main()
