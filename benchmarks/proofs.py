"""Files of proofs: forged in every way, and of random programs, checked in a fresh process.

`python benchmarks/proofs.py mutate SECONDS [NAME...]` changes every field, every tensor and bytes
of a file of each kind, and counts what both checkers say of it. A change that is accepted has to be
true of the program that it leaves. `python benchmarks/proofs.py random COUNT` saves proofs of
random programs and verifies them in another process; `documented` does so with all verdicts and
answers of sets in the examples of README and docs, `networks FOLDER` with a training step of each
of the paper's networks (data as `clarke reproduce --data` takes it; `digits` for enlarged ones).
Times are of the processor.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from hypothesis import HealthCheck, given, settings

import clarke
import test_docs
from clarke.cli import make_app  # noqa: F401 - loads what the first file would wait for
from clarke.decide.descent import Stationarity
from clarke.decide.membership import Membership
from clarke.experiments.data import Source, load
from clarke.experiments.models import Activation, fnn, resnet18, vgg11, vgg11_bn
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
SAMPLES = 2  # images of a step of a network
SECONDS = 600
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


def saved(folder: Path, count: int) -> None:
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
        mine, why = own(path, seconds=SECONDS)
        middle = time.process_time()
        other, words = independent(path)
        spent = middle - start, time.process_time() - middle
        found.append(
            (path.name.split(".")[1], mine, other, why, words, *spent, path.stat().st_size)
        )
    json.dump(found, sys.stdout)


@contextlib.contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Every proof of a verdict, and answer of a set, that is made meanwhile is saved at once."""
    made = (clarke.Report, Membership, Stationarity)
    before = [c.__init__ for c in made]  # type: ignore[misc] - each of its own class
    number = iter(range(10**6))

    def noting(begin: Callable[..., None]) -> Callable[..., None]:
        def init(self: Any, *args: Any, **named: Any) -> None:
            begin(self, *args, **named)
            proof = getattr(self, "certificate", None)
            if proof is None:
                return
            name = self.verdict.name if isinstance(self, clarke.Report) else type(self).__name__
            path = folder / f"{next(number)}.{name}.clarke"
            try:
                if isinstance(self, clarke.Report):
                    self.save(path)
                else:
                    clarke.save_certificate(self, path)
            except clarke.ClarkeError as error:
                sys.stdout.write(f"not saved: {name} {error}\n")

        return init

    for c in made:
        c.__init__ = noting(c.__init__)  # type: ignore[misc]
    try:
        yield
    finally:
        for c, init in zip(made, before, strict=True):
            c.__init__ = init  # type: ignore[misc]


def documented(folder: Path) -> None:
    """Proofs of whatever the examples of README and docs judge."""
    there = Path.cwd()
    for page in test_docs.WITH_CODE:
        with tempfile.TemporaryDirectory() as scratch, noted(folder):
            os.chdir(scratch)
            try:
                for _ in test_docs.outputs(page):
                    pass
            except Exception as error:  # noqa: BLE001 - it is told, and others are run
                sys.stdout.write(f"{page.name} cannot run: {error!r}\n")
            finally:
                os.chdir(there)


def _loss(net: Any, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(net(pixels), labels)


def networks(folder: Path, data: str) -> None:
    """A step of each of the paper's networks, from its first weights."""
    for source, made in (
        (Source.MNIST, {f"fnn-{a.value}": lambda a=a: fnn(a) for a in Activation}),
        (Source.CIFAR10, {f.__name__: f for f in (vgg11, vgg11_bn, resnet18)}),
    ):
        images = load(source, data)
        for name, network in made.items():
            torch.manual_seed(0)
            net = network()
            pixels, labels = images.pixels[:SAMPLES] / 255, images.labels[:SAMPLES]
            loss = partial(_loss, net, pixels, labels)
            report = clarke.check(loss, seconds=SECONDS)
            sys.stdout.write(f"{name}: {report.verdict.name}\n")
            if report.certificate is not None:
                report.save(folder / f"{name}.{report.verdict.name}.clarke")


def in_another_process(save: Callable[..., None], *more: Any) -> None:
    """Save here, verify in a fresh process, print a table."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), *more)
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
    command, argument, *more = [*sys.argv[1:], ""]
    if command == "mutate":
        mutate(float(argument), more[:-1])
    elif command == "random":
        in_another_process(saved, int(argument))
    elif command == "documented":
        in_another_process(documented)
    elif command == "networks":
        in_another_process(networks, argument)
    else:
        verified(Path(argument))
