"""Time to exact Clarke subdifferentials: `python benchmarks/exact.py`.

Sum of |x_i| in 20 variables (2^20 limiting gradients, never listed) and random kinks through a
point in 3 variables, all of their limiting gradients and vertices. Medians of repeated calls; the
figure to reach is 10 s for 40 kinks in 3 variables.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import clarke


def median_time(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the median call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def sum_of_absolute_values(size: int, repeats: int) -> None:
    """Membership, smallest element and descent of sum |x_i| at the origin."""
    x = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    half = torch.full((size,), 0.5, dtype=torch.float64)

    def run() -> None:
        found = clarke.subdifferential(lambda x: x.abs().sum(), (x,))
        if not (found.contains(half) and not found.contains(3 * half)):
            raise AssertionError("membership")
        if float(found.min_norm()[0].abs().max()) > 1e-9 or found.directional(half) != size / 2:
            raise AssertionError("smallest element or directional derivative")

    seconds = median_time(run, repeats)
    print(f"sum |x_i|, {size} variables, 2^{size} limiting gradients: {seconds:.2f} s")


def kinks_through_a_point(kinks: int, size: int, repeats: int) -> None:
    """Sum of |a_i . x| at the origin: its cells are those of a central arrangement."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(kinks, size, dtype=torch.float64, generator=generator)
    x = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    found = []
    run = median_time(
        lambda: found.append(clarke.subdifferential(lambda x: (A @ x).abs().sum(), (x,))), repeats
    )
    corners = median_time(found[0].vertices, repeats)
    # Cells of a central arrangement in general position: 2 sum_{i < size} C(kinks - 1, i).
    cells = len(found[0].bouligand())
    print(
        f"{kinks} kinks through a point in {size} variables: {run:.2f} s for {cells} limiting "
        f"gradients, {corners:.2f} s more for {len(found[0].vertices())} vertices"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    sum_of_absolute_values(20, repeats)
    kinks_through_a_point(20, 3, repeats)
    kinks_through_a_point(40, 3, repeats)


if __name__ == "__main__":
    main()
