"""Files of proofs: forged in every way, and of random programs, checked in a fresh process.

`python benchmarks/proofs.py mutate SECONDS [NAME...]` changes every field, every tensor and bytes
of a file of each kind, and counts what both checkers say of it. A change that is accepted has to be
true of the program that it leaves. `python benchmarks/proofs.py random COUNT` saves proofs of
random programs and verifies them in another process. Times are of the processor.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from hypothesis import HealthCheck, given, settings

import clarke
from clarke.cli import make_app  # noqa: F401 - loads what the first file would wait for
from reference import cases, to_torch
from reference.mutations import (
    byte_changes,
    changes,
    tensor_changes,
    tricks_with,
    true_as_it_stands,
)
from reference.proofs import CHECKED, REJECTED, forged, independent, opened, own
from reference.zoo import ZOO, leaf

SHOWN = {"written_by", "theorem", "place", "places", "name"}  # shown, and used by nobody
WORDS = ("checked", "rejected", "cannot tell")


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """A file of each kind of proof."""
    for name, (function, x, _) in ZOO.items():
        report = clarke.check(function, (x,))
        yield name, report.save(folder / f"{name.replace(' ', '-')}.clarke")
    found = clarke.subdifferential(lambda x: x.abs().sum() - 2 * x[0].abs(), (leaf(0.0, 0.0),))
    for name, vector in (("member", (0.5, 0.5)), ("no member", (0.0, 3.0))):
        answer = found.contains(torch.tensor(vector, dtype=torch.float64))
        yield name, clarke.save_certificate(answer, folder / f"{name}.clarke")
    for name in ("min_norm", "vertices", "rank"):
        yield name, clarke.save_certificate(found.certificate(name), folder / f"{name}.clarke")
    slope = found.certificate("directional", torch.tensor([0.5, -0.25], dtype=torch.float64))
    yield "slope", clarke.save_certificate(slope, folder / "slope.clarke")


def mutations(path: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Changed files, written to `target` one after the other: (kind of change, place)."""
    content, tensors = opened(path)
    for where, changed in changes(content):
        if set(where) & SHOWN:
            continue
        forged(target, changed, tensors)
        yield "field", ".".join(where)
    for which, what, changed in tensor_changes(tensors):
        forged(target, content, changed)
        yield "tensor", f"{which} ({what})"
    raw = path.read_bytes()
    for changed in byte_changes(raw, random.Random(0), flips=60, cuts=20):  # noqa: S311 - no secret
        target.write_bytes(changed)
        yield "bytes", ""
    for name, changed in tricks_with(path).items():
        target.write_bytes(changed)
        yield "trick", name


def mutate(seconds: float, names: list[str]) -> None:
    """Change files until the time is over; prints a table, and whatever should not have passed."""
    seen: Counter[tuple[str, str, str]] = Counter()
    wrong, slowest = [], 0.0
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "changed.clarke"
        todo = [(n, p) for n, p in files(Path(folder)) if not names or n in names]
        for name, path in todo:
            deadline = time.process_time() + (seconds + began - time.process_time()) / len(todo)
            every = mutations(path, target)
            for kind, where in every:
                start = time.process_time()
                mine, why = own(target)
                other, words = independent(target)
                slowest = max(slowest, time.process_time() - start)
                seen[kind, WORDS[mine], WORDS[other]] += 1
                told = mine != REJECTED and kind in ("bytes", "trick")
                if "\n" in why + words or told or (mine == CHECKED and not _true(target)):
                    wrong.append((name, kind, where, why, words))
                if time.process_time() > deadline:
                    sys.stdout.write(f"{name}: not all changes were tried\n")
                    break
    for key, count in sorted(seen.items()):
        sys.stdout.write("{:8} clarke: {:12} clarke_verify.py: {:12}".format(*key) + f"{count:6}\n")
    total, refused = sum(seen.values()), sum(n for k, n in seen.items() if REJECTED in _both(k))
    sys.stdout.write(f"{total} changes, {refused} rejected, slowest {slowest:.2f} s\n")
    for line in wrong:
        sys.stdout.write(f"WRONG {line}\n")


def _both(key: tuple[str, str, str]) -> tuple[int, int]:
    return WORDS.index(key[1]), WORDS.index(key[2])


def _true(path: Path) -> bool:
    """Whether what an accepted file says is so, found out anew; what is of sets by verifying."""
    if opened(path)[0]["claim"]["kind"] in ("membership", "smallest", "vertices", "rank", "slope"):
        return clarke.load_certificate(path).verify()
    return true_as_it_stands(path)


def saved(count: int, folder: Path) -> None:
    """Proofs of random programs, as many as have one."""
    number = iter(range(count))

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(cases())
    def run(case: Any) -> None:
        x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
        report = clarke.check(to_torch(case.expr), (x,))
        if report.certificate is not None:
            report.save(folder / f"{next(number)}.{report.verdict.name}.clarke")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()


def verified(folder: Path) -> None:
    """Verify all files of a folder by both checkers; prints what came out."""
    found = []
    for path in sorted(folder.iterdir()):
        start = time.process_time()
        mine, why = own(path)
        middle = time.process_time()
        other, words = independent(path)
        spent = middle - start, time.process_time() - middle
        found.append(
            (path.name.split(".")[1], mine, other, why, words, *spent, path.stat().st_size)
        )
    json.dump(found, sys.stdout)


def randomly(count: int) -> None:
    """Save here, verify in a fresh process, print a table."""
    with tempfile.TemporaryDirectory() as folder:
        saved(count, Path(folder))
        # What it says of itself, a traceback among it, is shown as it comes.
        done = subprocess.run(
            [sys.executable, __file__, "verified", folder], stdout=subprocess.PIPE, check=True
        )
    found = json.loads(done.stdout)
    seen = Counter((v, WORDS[a], WORDS[b]) for v, a, b, *_ in found)
    for key, number in sorted(seen.items()):
        sys.stdout.write("{:10} clarke: {:12} clarke_verify.py: {:12}".format(*key) + f"{number}\n")
    for verdict, mine, other, why, words, *_ in found:
        if REJECTED in (mine, other):
            sys.stdout.write(f"WRONG {verdict} {why} {words}\n")
    for reason, number in Counter(f[4] for f in found if f[2] > 1).most_common(8):
        sys.stdout.write(f"cannot tell: {number} {reason}\n")
    for name, column in (("clarke", 5), ("clarke_verify.py", 6), ("bytes", 7)):
        values = [f[column] for f in found]
        told = f"median {median(values):.4g}, largest {max(values):.4g}"
        sys.stdout.write(f"{name}: {told}\n")


if __name__ == "__main__":
    command, argument, *more = sys.argv[1:]
    if command == "mutate":
        mutate(float(argument), more)
    elif command == "random":
        randomly(int(argument))
    else:
        verified(Path(argument))
