"""Time to a witness or a contradiction on large sparse systems: `python benchmarks/feasibility.py`.

Prints the median over random systems of one call of `find_witness`, exact verification included;
building the system is not counted. CPU is processor time, which other programs running at the same
time hardly change. The figure to reach is a witness for 10 000 rows of up to 600
non-zeros over 10**6 parameters in 10 s. Every answer is compared with what was planted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

from clarke.feasibility import Outcome, find_witness

Build = Callable[[np.random.Generator, int, int, int], Any]


def from_columns(columns: Any, data: Any, n: int) -> Any:
    """CSR rows from equally many columns and entries in each."""
    m, k = columns.shape
    rows = scipy.sparse.csr_array(
        (data.ravel(), columns.ravel(), np.arange(m + 1) * k), shape=(m, n)
    )
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def planted(rows: Any, rng: np.random.Generator) -> Any:
    """The rows, each turned to agree with a hidden direction."""
    values = rows @ rng.standard_normal(rows.shape[1])
    return scipy.sparse.csr_array(scipy.sparse.diags_array(np.sign(values)) @ rows[:])


def bias_layer(rng: np.random.Generator, m: int, n: int, k: int) -> Any:
    """64 channels, each with its own weights and a bias that has one sign: pure columns."""
    channel = rng.integers(0, 64, m)
    data = rng.standard_normal((m, k))
    data[:, -1] = np.where(channel % 2, 1.0, -1.0)
    return from_columns(channel[:, None] * (n // 64) + np.arange(k), data, n)


def ties_layer(rng: np.random.Generator, m: int, n: int, k: int) -> Any:
    """16 channels of doubly smooth, half zero patches without bias: nearly dependent rows."""
    channel = rng.integers(0, 16, m)
    data = np.cumsum(np.cumsum(rng.standard_normal((m, k)), axis=1), axis=1) / k
    data = np.maximum(data, 0.0).astype(np.float32).astype(np.float64)
    used = data.any(axis=1)
    columns = channel[:, None] * (n // 16) + np.arange(k)
    return planted(from_columns(columns[used], data[used], n), rng)


def coupled(used: int) -> Build:
    """Normal entries in random columns among `used` of the n: no pure column, no components."""

    def build(rng: np.random.Generator, m: int, n: int, k: int) -> Any:
        columns = rng.integers(0, used, (m, k)) * (n // used)
        return planted(from_columns(columns, rng.standard_normal((m, k)), n), rng)

    return build


def contradictory(used: int, size: int) -> Build:
    """As coupled, with integers, and one row minus a positive combination of `size` others."""

    def build(rng: np.random.Generator, m: int, n: int, k: int) -> Any:
        columns = rng.integers(0, used, (m, k)) * (n // used)
        data = rng.integers(1, 300, (m, k)) * rng.choice([-1.0, 1.0], (m, k))
        rows = planted(from_columns(columns, data, n), rng)
        last = -(scipy.sparse.csr_array(rng.integers(1, 5, (1, size)) * 1.0) @ rows[:size])
        return scipy.sparse.csr_array(scipy.sparse.vstack([rows, last]))[rng.permutation(m + 1)]

    return build


SYSTEMS: tuple[tuple[str, Build, Outcome], ...] = (
    ("layer with biases (pure columns)", bias_layer, Outcome.WITNESS),
    ("layer of smooth ties, no bias", ties_layer, Outcome.WITNESS),
    ("coupled over 200 000 columns", coupled(200_000), Outcome.WITNESS),
    ("coupled over 4 000 columns", coupled(4_000), Outcome.WITNESS),
    ("coupled over 1 500 columns", coupled(1_500), Outcome.WITNESS),
    ("contradiction of 6 rows, 200 000 columns", contradictory(200_000, 5), Outcome.CONTRADICTION),
    ("contradiction of 41 rows, 4 000 columns", contradictory(4_000, 40), Outcome.CONTRADICTION),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--parameters", type=int, default=10**6)
    parser.add_argument("--nonzeros", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print(f"{given.rows} rows, {given.nonzeros} non-zeros each, {given.parameters} parameters")
    print(f"{'system':42}{'median':>9}{'worst':>9}{'CPU':>9}   margin   found by")
    for name, build, expected in SYSTEMS:
        times, cpu, margins, methods = [], [], [], ()
        for seed in range(given.repeats):
            rng = np.random.default_rng(seed)
            rows = build(rng, given.rows, given.parameters, given.nonzeros)
            start = time.perf_counter(), time.process_time()
            result = find_witness(rows)
            times.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
            if result.outcome is not expected:
                raise SystemExit(f"{name}, seed {seed}: {result.outcome.name}")
            margins.append(result.margin)
            methods = result.methods
        print(
            f"{name:42}{statistics.median(times):7.2f} s{max(times):7.2f} s"
            f"{statistics.median(cpu):7.2f} s   {min(margins):.1e}"
            f"  {', '.join(method.name for method in methods)}"
        )


if __name__ == "__main__":
    main()
