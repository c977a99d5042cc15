"""Exact sets of sums of absolute values: chambers, seconds and memory, family by family.

``make bench-sets``. The gradients of ``|A x|_1`` at 0 are the chambers of the rows of A, so that
families of arrangements whose numbers are known test whole sets:

- reflection n: x_i and x_i - x_j, (n + 1)! chambers,
- threshold n: (1, s) for s in {0, 1}^n: 4, 14, 104, 1 882, 94 572,
- resonance n: nonzero s in {0, 1}^n: 2, 6, 32, 370, 11 292,
- demihypercube and cross-polytope: the vertices with a leading 1,
- sparse and low-rank random integers.

Every count is compared with the sequence, or with deletion and restriction. Where polymake is
installed, ``--polymake`` times its zonotopes on the same rows. Seconds are the processor's.

A second table asks convex functions with 2 000 kinks in 50 variables, which nothing lists.
"""

from __future__ import annotations

import argparse
import itertools
import math
import resource
import shutil
import subprocess
import time
from collections.abc import Callable

import numpy as np
import torch

import clarke
from clarke.arrangement import count_chambers, integer_row

Rows = list[tuple[int, ...]]


def reflection(n: int) -> Rows:
    """Type A: x_i and x_i - x_j."""
    units = np.eye(n, dtype=int)
    rows = [*units, *(units[i] - units[j] for i, j in itertools.combinations(range(n), 2))]
    return [tuple(r.tolist()) for r in rows]


def threshold(n: int) -> Rows:
    """(1, s) for all s of zeros and ones."""
    return [(1, *s) for s in itertools.product((0, 1), repeat=n)]


def resonance(n: int) -> Rows:
    """All s of zeros and ones but zero."""
    return [s for s in itertools.product((0, 1), repeat=n) if any(s)]


def demihypercube(n: int) -> Rows:
    """A leading 1 and the vertices of the cube with an even number of ones."""
    return [(1, *s) for s in itertools.product((0, 1), repeat=n) if sum(s) % 2 == 0]


def cross_polytope(n: int) -> Rows:
    """A leading 1 and plus and minus the unit vectors."""
    units = np.eye(n, dtype=int)
    return [(1, *(sign * u).tolist()) for u in units for sign in (1, -1)]


def sparse(m: int, n: int, seed: int) -> Rows:
    """Random rows with three entries each."""
    generator = np.random.default_rng(seed)
    rows = np.zeros((m, n), dtype=int)
    for row in rows:
        places = generator.choice(n, size=3, replace=False)
        row[places] = generator.integers(1, 4, size=3) * generator.choice([-1, 1], size=3)
    return [tuple(r.tolist()) for r in rows]


def low_rank(m: int, n: int, rank: int, seed: int) -> Rows:
    """A product of random matrices."""
    generator = np.random.default_rng(seed)
    left, right = generator.integers(-3, 4, (m, rank)), generator.integers(-3, 4, (rank, n))
    return [tuple(r) for r in (left @ right).tolist() if any(r)]


THRESHOLD = (4, 14, 104, 1_882, 94_572)
RESONANCE = (2, 6, 32, 370, 11_292)

Family = tuple[str, Callable[[], Rows], int | None]


def families(*, large: bool) -> list[Family]:
    """Names, rows, and numbers of chambers where these are known."""
    sizes = range(4, 9 if large else 8)
    found: list[Family] = [
        (f"reflection {n}", lambda n=n: reflection(n), math.factorial(n + 1)) for n in sizes
    ]
    found += [
        (f"threshold {n}", lambda n=n: threshold(n), THRESHOLD[n - 1])
        for n in range(2, 6 if large else 5)
    ]
    found += [(f"resonance {n}", lambda n=n: resonance(n), RESONANCE[n - 1]) for n in range(3, 6)]
    found += [
        ("demihypercube 5", lambda: demihypercube(5), None),
        ("cross-polytope 8", lambda: cross_polytope(8), None),
        ("sparse 20x8", lambda: sparse(20, 8, 0), None),
        ("low rank 30x12, 5", lambda: low_rank(30, 12, 5, 0), None),
    ]
    return found


def measure(rows: Rows) -> tuple[int, float, int]:
    """Chambers of a set that was streamed, seconds, and its rank."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    x = torch.zeros(matrix.shape[1], dtype=torch.float64, requires_grad=True)
    began = time.process_time()
    found = clarke.subdifferential(lambda x: (matrix @ x).abs().sum(), (x,), seconds=None)
    listed = sum(len(block) for block in found.stream(seconds=None))
    seconds = time.process_time() - began
    rank = found.rank
    return listed, seconds, -1 if rank is None else rank.rank


def zonotope_in_polymake(rows: Rows, limit: float) -> tuple[int, float] | None:
    """Vertices of the zonotope, and its own seconds without polymake's start; None if longer."""
    points = ",".join("[1," + ",".join(map(str, row)) + "]" for row in rows)
    script = (
        "my ($t) = times;"
        f"my $v = zonotope_vertices_fukuda(new Matrix([{points}]));"
        'my ($e) = times; print $v->rows, " ", $e - $t, "\\n";'
    )
    try:
        found = subprocess.run(
            [str(shutil.which("polymake")), script],
            capture_output=True,
            text=True,
            timeout=limit,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    count, seconds = found.stdout.split()
    return int(count), float(seconds)


def convex() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Functions that bend upwards, with 2 000 kinks at zero."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2000, 50, dtype=torch.float64, generator=generator)
    return {
        "sum of absolute values": lambda z: (rows @ z).abs().sum(),
        "maximum of affine functions": lambda z: (rows @ z).amax(),
        "hinge losses": lambda z: torch.relu(1 - (1 + rows @ z)).sum(),
        "hinge losses and a 1-norm": lambda z: torch.relu(rows @ z).mean() + z.abs().sum(),
    }


def ask_convex() -> None:
    """Print a table of seconds."""
    names = ("set", "contains", "outside", "min_norm", "directional", "is_stationary", "minimum")
    print("\n| function | " + " | ".join(names) + " |\n|---|" + "--:|" * len(names))
    for name, function in convex().items():
        z = torch.zeros(50, dtype=torch.float64, requires_grad=True)
        direction = torch.linspace(-1, 1, 50, dtype=torch.float64)
        beside = direction.clone().requires_grad_()
        (element,) = torch.autograd.grad(function(beside), beside)
        times = [time.process_time()]

        def done(what: object, times: list[float] = times, name: str = name) -> None:
            times.append(time.process_time())
            if not what:
                raise SystemExit(f"{name}: another answer than there is")

        found = clarke.subdifferential(function, (z,))
        done(found.complete)
        done(found.contains(element))
        done(found.contains(element + 1000 * direction).inside is False)
        done(found.min_norm())
        slope = found.directional(direction)
        done(abs(slope - float(element @ direction)) <= 1e-9 * abs(slope))
        done(found.is_stationary().stationary is not None)
        done(found.is_local_minimum().minimum is not None)
        shown = (f"{b - a:.2f}" for a, b in itertools.pairwise(times))
        print(f"| {name} | " + " | ".join(shown) + " |", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="leave out what takes longest")
    parser.add_argument("--polymake", type=float, metavar="SECONDS", help="and how long to wait")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    other = chosen.polymake is not None and shutil.which("polymake") is not None
    if chosen.polymake is not None and not other:
        print("polymake is not installed (Debian: apt install polymake): left out\n")
    measure(reflection(3))  # what is loaded once
    print("| family | rows | rank | chambers | seconds | µs/chamber | MB |", end="")
    print(" polymake |" if other else "")
    print("|---|--:|--:|--:|--:|--:|--:|" + ("--:|" if other else ""))
    for name, make, known in families(large=not chosen.small):
        rows = make()
        count, seconds, rank = measure(rows)
        wanted = count_chambers(integer_row(r) for r in rows) if known is None else known
        if count != wanted:
            raise SystemExit(f"{name}: {count} chambers, not {wanted}")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        each = 1e6 * seconds / count
        line = (
            f"| {name} | {len(rows)} | {rank} | {count} | {seconds:.2f} | {each:.0f} | {memory} |"
        )
        if other:
            own = zonotope_in_polymake(rows, chosen.polymake)
            line += f" {'—' if own is None else f'{own[1]:.2f} s'} |"
        print(line, flush=True)
    ask_convex()


if __name__ == "__main__":
    main()
