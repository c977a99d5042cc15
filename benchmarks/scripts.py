"""Training scripts that know nothing of clarke, plain and under `clarke run`.

    python benchmarks/scripts.py [--steps N] [--seconds S] [--only NAME,NAME] [--inside]

For each script of `benchmarks/scripts`: whether what it prints and its final weights are the same
to the bit, the verdict on every gradient, the ratio of processor time (start-up taken off), the
ratio of peak memory and the longest judgement. A script makes so many steps that without clarke
they take as long as processor times can tell. With `--inside` everything runs in this process,
plain and audited in turns, for busy machines: no memory, no weights, times of one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

import clarke
from clarke.report.runs.folder import read_run
from clarke.verdict import Verdict

FOLDER = Path(__file__).parent / "scripts"
_FEW = 2  # steps of the short run, whose time is start-up
_TELLS = 0.5  # processor seconds without start-up, from which on a ratio tells something


@dataclass(frozen=True)
class Ran:
    """One run of a script: what it printed, its weights, processor seconds, peak MiB."""

    printed: str
    weights: object
    seconds: float
    memory: float
    verdicts: Counter[str]
    reasons: Counter[str]
    longest: float


@dataclass(frozen=True)
class Row:
    """One script, plain and audited."""

    name: str
    same: bool
    verdicts: Counter[str]
    reasons: Counter[str]
    steps: int
    time: float | None
    memory: float
    longest: float

    @property
    def undecided(self) -> int:
        """How many gradients stayed undecided."""
        return self.verdicts["UNDECIDED"]


def run(script: Path, *, steps: int, audited: bool, seconds: float = 1.0) -> Ran:
    """Run a script in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        saved, folder = Path(scratch, "weights.pt"), Path(scratch, "run")
        words = [str(script), "--save", str(saved), "--steps", str(steps)]
        if audited:
            limit = ["--seconds", str(seconds)]
            words = ["-m", "clarke", "run", *limit, "--out", str(folder), *words]
        with Path(scratch, "out").open("w+") as out, Path(scratch, "err").open("w+") as err:
            process = subprocess.Popen([sys.executable, *words], stdout=out, stderr=err)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            printed, said = out.read(), err.read()
        if process.returncode:
            raise SystemExit(f"{script.name} ended with {process.returncode}:\n{said}")
        found = [s for s in read_run(folder).steps if s.verdict] if audited else []
        return Ran(
            printed,
            torch.load(saved, weights_only=True),
            used.ru_utime + used.ru_stime,
            used.ru_maxrss / 1024,
            Counter(s.verdict.name for s in found),
            Counter(s.reason for s in found if s.verdict is Verdict.UNDECIDED),
            max((s.seconds for s in found), default=0.0),
        )


def measure(script: Path, steps: int | None, seconds: float = 1.0) -> Row:
    """Both runs of a script, and two short ones whose time is start-up.

    Args:
        script: The script.
        steps: How many; None for as many as tell.
        seconds: Limit of a judgement.
    """
    short, started = (run(script, steps=_FEW, audited=a, seconds=seconds) for a in (False, True))
    many = steps or _own_steps(script)
    plain = run(script, steps=many, audited=False)
    while steps is None and plain.seconds - short.seconds < _TELLS:
        many = math.ceil(
            many * min(max(2.0, 1.3 * _TELLS / max(plain.seconds - short.seconds, 0.01)), 16.0)
        )
        plain = run(script, steps=many, audited=False)
    audited = run(script, steps=many, audited=True, seconds=seconds)
    own = plain.seconds - short.seconds
    return Row(
        script.stem,
        plain.printed == audited.printed and same_bits(plain.weights, audited.weights),
        audited.verdicts,
        audited.reasons,
        many,
        (audited.seconds - started.seconds) / own if own >= _TELLS else None,
        audited.memory / plain.memory,
        audited.longest,
    )


def inside(script: Path, steps: int, seconds: float) -> Row:
    """A script in this process, plain and audited in turns, short and long."""
    sys.path.insert(0, str(FOLDER))
    module = importlib.import_module(script.stem)

    def once(count: int, *, audited: bool) -> tuple[float, str, list[clarke.Step]]:
        sys.argv = [script.name, "--steps", str(count)]
        audit = clarke.audit(lambda _: None, seconds=seconds) if audited else None
        with contextlib.redirect_stdout(io.StringIO()) as out, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            began = time.thread_time()
            with audit or contextlib.nullcontext():
                module.main()
            took = time.thread_time() - began
        return took, out.getvalue(), [] if audit is None else list(audit.steps)

    for audited in (False, True):  # what is loaded on first use
        once(_FEW, audited=audited)
    short, started = (once(_FEW, audited=a)[0] for a in (False, True))
    (plain, printed, _), (took, again, found) = (once(steps, audited=a) for a in (False, True))
    return Row(
        script.stem,
        printed == again,
        Counter(s.verdict.name for s in found),
        Counter(s.reason for s in found if s.verdict is Verdict.UNDECIDED),
        steps,
        (took - started) / (plain - short),
        math.nan,
        max((s.seconds for s in found), default=0.0),
    )


def _own_steps(script: Path) -> int:
    text = script.read_text()
    return int(text.split('"--steps", type=int, default=')[1].split(")")[0])


def same_bits(one: object, two: object) -> bool:
    """Whether two nests of dictionaries and lists hold the same tensors, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same_bits(one[k], two[k]) for k in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same_bits, one, two))
    return one == two


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="of every script; by default its own number")
    parser.add_argument("--seconds", type=float, default=1.0, help="limit of each judgement")
    parser.add_argument("--only", default="", help="names of scripts, with commas")
    parser.add_argument("--inside", action="store_true", help="in this process, in turns")
    options = parser.parse_args()
    chosen = [n for n in options.only.split(",") if n]
    print("| script | steps | results | gradients | time | memory | longest judgement |")
    print("|---|---|---|---|---|---|---|")
    reasons: Counter[str] = Counter()
    for script in sorted(FOLDER.glob("*.py")):
        if chosen and script.stem not in chosen:
            continue
        row = (
            inside(script, options.steps or 24, options.seconds)
            if options.inside
            else measure(script, options.steps, options.seconds)
        )
        told = ", ".join(f"{n} {name}" for name, n in row.verdicts.most_common())
        print(
            f"| {row.name} | {row.steps} | {'same' if row.same else 'DIFFERENT'} | {told} | "
            f"{'too short' if row.time is None else format(row.time, '.2f')} | "
            f"{row.memory:.2f} | {row.longest:.2f} s |",
            flush=True,
        )
        reasons.update({f"{row.name}: {why}": n for why, n in row.reasons.items()})
    for why, count in reasons.most_common():
        print(f"undecided {count} x {why}")


if __name__ == "__main__":
    main()
