"""Our integer arithmetic beside python-flint, and cold linear programs beside highspy's.

`pip install python-flint highspy`, then `python benchmarks/libraries.py`. Processor's seconds, best
of three; sizes are those that the package meets (rows of kinks as integers, contradictions to
check, cells of an arrangement). The answers are compared.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import flint
import highspy
import numpy as np
from scipy.optimize import linprog

from clarke.arrangement.integers import basis, on_hyperplane, pivot_of
from clarke.deadline import UNLIMITED
from clarke.feasibility.rational import _solve

Matrix = list[list[int]]


def best(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor's seconds of the quickest of three calls, and the answer."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        answer = call()
        spent.append(time.process_time() - began)
    return min(spent), answer


def told(what: str, ours: float, theirs: float) -> None:
    """A line of the table."""
    print(
        f"| {what} | {1e3 * ours:.3g} ms | {1e3 * theirs:.3g} ms | {ours / theirs:.2g} |",
        flush=True,
    )


def random_rows(count: int, size: int, bits: int, seed: int = 0) -> Matrix:
    """Integers with signs."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    return [[rng.randrange(-(1 << bits), 1 << bits) for _ in range(size)] for _ in range(count)]


def ranks(count: int, size: int, bits: int) -> None:
    """Rank, and which rows are independent."""
    rows = random_rows(count, size, bits)
    mine, found = best(lambda: len(basis(rows)[0]))
    theirs, other = best(lambda: flint.fmpz_mat(rows).rank())
    if found != other:
        raise SystemExit("ranks differ")
    told(f"rank, {count} x {size}, {bits} bits", mine, theirs)


def solutions(size: int, bits: int) -> None:
    """Square systems in rationals, as for a contradiction's multipliers."""
    system = random_rows(size, size + 1, bits, seed=1)
    mine, found = best(lambda: _solve([list(r) for r in system], UNLIMITED))

    def other() -> list[Fraction]:
        left = flint.fmpz_mat([r[:-1] for r in system])
        right = flint.fmpz_mat([[r[-1]] for r in system])
        solved = left.solve(right)
        return [Fraction(int(v.p), int(v.q)) for v in solved.entries()]

    theirs, same = best(other)
    if found != same:
        raise SystemExit("solutions differ")
    told(f"solve, {size} unknowns, {bits} bits", mine, theirs)


def traces(count: int, size: int, bits: int) -> None:
    """The rows on every hyperplane in turn: what the search for chambers does most."""
    rows = [tuple(r) for r in random_rows(count, size, bits, seed=2)]

    def mine() -> list[Any]:
        return [on_hyperplane(rows[:k], rows[k], pivot_of(rows[k])) for k in range(1, count)]

    def theirs() -> list[Any]:
        found = []
        for k in range(1, count):
            wall = rows[k]
            column = pivot_of(wall)
            above = flint.fmpz_mat([list(r) for r in rows[:k]])
            lead, sign = abs(wall[column]), 1 if wall[column] > 0 else -1
            pivots = flint.fmpz_mat([[sign * r[column]] for r in rows[:k]])
            left = lead * above - pivots * flint.fmpz_mat([list(wall)])
            own = []
            for row in left.tolist():
                vector = [int(v) for j, v in enumerate(row) if j != column]
                common = math.gcd(*vector)
                own.append(tuple(v // common for v in vector) if common > 1 else tuple(vector))
            found.append(own)
        return found

    ours, a = best(mine)
    other, b = best(theirs)
    if a != b:
        raise SystemExit("traces differ")
    told(f"traces on hyperplanes, {count} x {size}, {bits} bits", ours, other)


def programs(count: int, size: int, changes: int) -> None:
    """Largest margins where one row after the other turns: cold by SciPy, warm by highspy."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((count, size))
    turns = generator.integers(0, count, changes)

    def cold() -> list[float]:
        own, values = rows.copy(), []
        for i in turns:
            own[i] = -own[i]
            found = linprog(
                np.r_[np.zeros(size), -1.0],
                A_ub=np.c_[-own, np.ones(count)],
                b_ub=np.zeros(count),
                bounds=[(-1.0, 1.0)] * size + [(None, None)],
                method="highs",
            )
            values.append(-float(found.fun))
        return values

    def warm() -> list[float]:
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        infinity = highspy.kHighsInf
        for _ in range(size):
            solver.addCol(0.0, -1.0, 1.0, 0, [], [])
        solver.addCol(-1.0, -infinity, infinity, 0, [], [])
        every = np.arange(size + 1, dtype=np.int32)
        for row in rows:
            solver.addRow(-infinity, 0.0, size + 1, every, np.r_[-row, 1.0])
        own, values = rows.copy(), []
        for i in turns.tolist():
            own[i] = -own[i]
            for j in range(size):
                solver.changeCoeff(i, j, -own[i, j])
            solver.run()
            values.append(-solver.getInfo().objective_function_value)
        return values

    ours, a = best(cold)
    theirs, b = best(warm)
    if not np.allclose(a, b, atol=1e-6):
        raise SystemExit("margins differ")
    told(f"{changes} margins, {count} x {size}, one row turned each", ours, theirs)


def main() -> None:
    """Print the table."""
    print("| what | here | library | here / library |")
    print("|---|--:|--:|--:|")
    for count, size, bits in ((32, 6, 2), (36, 8, 53), (40, 20, 53), (200, 50, 53)):
        ranks(count, size, bits)
    for size, bits in ((4, 53), (10, 53), (30, 53), (80, 53)):
        solutions(size, bits)
    for count, size, bits in ((32, 6, 2), (36, 8, 2), (36, 8, 53)):
        traces(count, size, bits)
    for count, size in ((10, 4), (40, 10), (200, 50)):
        programs(count, size, 20)


if __name__ == "__main__":
    main()
