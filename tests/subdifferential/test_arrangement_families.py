"""Families of hyperplanes from the literature, whose numbers of chambers are known in closed form.

Each is asked as a program that bends both ways, so that all chambers are listed and none is left
unproved.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import clarke
from clarke.arrangement import tree
from clarke.decide import flat
from clarke.decide.dependent import made_dependent

Rows = list[list[float]]


def difference(n: int, i: int, j: int, sign: int = -1, last: int = 0) -> list[float]:
    row = [0.0] * n
    row[i], row[j] = 1.0, float(sign)
    row[-1] += last
    return row


def reflections_b(n: int) -> Rows:
    pairs = itertools.combinations(range(n), 2)
    return [*np.eye(n).tolist(), *reflections_d(n, pairs)]


def reflections_d(n: int, pairs: object = None) -> Rows:
    own = itertools.combinations(range(n), 2) if pairs is None else pairs
    return [difference(n, i, j, sign) for i, j in own for sign in (1, -1)]  # type: ignore[attr-defined]


def reflections_f4() -> Rows:
    halves = [[0.5, *signs] for signs in itertools.product((0.5, -0.5), repeat=3)]
    return [*reflections_b(4), *halves]


def cone_over(n: int, offsets: tuple[int, ...]) -> Rows:
    """x_i - x_j = k for all k of some, made central: Shi (0, 1), Catalan (-1, 0, 1), Linial (1)."""
    pairs = itertools.combinations(range(n), 2)
    rows = [difference(n + 1, i, j, last=-k) for i, j in pairs for k in offsets]
    return [[0.0] * n + [1.0], *rows]


def moments(m: int, n: int) -> Rows:
    return [[float(t**k) for k in range(n)] for t in range(1, m + 1)]


def in_general_position(m: int, n: int) -> int:
    return 2 * sum(math.comb(m - 1, i) for i in range(n))


def apart(*parts: Rows) -> Rows:
    size = sum(len(p[0]) for p in parts)
    found, start = [], 0
    for part in parts:
        width = len(part[0])
        found += [[0.0] * start + r + [0.0] * (size - start - width) for r in part]
        start += width
    return found


def within_rounding(rows: Rows) -> Rows:
    """No two rows keep what they had exactly in common."""
    values = np.array(rows) * (math.pi / 3)
    up = np.random.default_rng(0).random(values.shape) < 0.5
    moved = np.where(up, np.nextafter(values, np.inf), np.nextafter(values, -np.inf))
    found: Rows = np.where(values == 0, 0.0, moved).tolist()
    return found


def repeated(rows: Rows) -> Rows:
    factors = itertools.cycle((1.0, -2.0, 0.1, -1.0, 3.0))
    return [[f * v for v in row] for row in rows for f, _ in zip(factors, range(2), strict=False)]


def of_low_rank(m: int, n: int, rank: int) -> Rows:
    generator = np.random.default_rng(m)
    found: Rows = (
        generator.standard_normal((m, rank)) @ generator.standard_normal((rank, n))
    ).tolist()
    return found


FAMILIES = {
    "B4": (reflections_b(4), 2**4 * 24),
    "D5": (reflections_d(5), 2**4 * 120),
    "F4": (reflections_f4(), 1152),
    "Shi": (cone_over(4, (0, 1)), 2 * 5**3),
    "Catalan": (cone_over(4, (-1, 0, 1)), 2 * 24 * 14),
    "Linial": (cone_over(5, (1,)), 2 * 246),
    "cycle": ([difference(7, i, (i + 1) % 7) for i in range(7)], 2**7 - 2),
    "moment curve": (moments(9, 5), in_general_position(9, 5)),
    "thin": (moments(12, 9), in_general_position(12, 9)),
    "three words": (moments(140, 3), in_general_position(140, 3)),
    "blocks": (apart(reflections_b(3), reflections_d(4), moments(5, 3)), 48 * 192 * 22),
    "but for rounding": (within_rounding(cone_over(4, (0, 1))), 2 * 5**3),
    "repeated": (repeated(cone_over(4, (1,))), 2 * 36),
    "low rank": (of_low_rank(16, 12, 4), in_general_position(16, 4)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_chamber_is_listed_and_proved(name: str) -> None:
    rows, known = FAMILIES[name]
    matrix = torch.tensor(rows, dtype=torch.float64)
    signs = torch.ones(len(rows), dtype=torch.float64)
    signs[::3] = -1
    x = torch.zeros(matrix.shape[1], dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(lambda x: (signs * (matrix @ x).abs()).sum(), (x,))
    assert found.count() == known
    assert found.complete


def test_chambers_of_low_rank_need_no_linear_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A direction in coordinates of the rank is one of the variables, once lifted."""

    def never(*_: object, **__: object) -> object:
        raise AssertionError("a chamber was searched for that was known")

    monkeypatch.setattr(flat, "find_witness", never)
    test_every_chamber_is_listed_and_proved("low rank")


def test_lifted_directions_have_the_signs_of_their_rows() -> None:
    rows = np.array(of_low_rank(9, 6, 3)) * np.logspace(-3, 3, 9)[:, None]
    found = made_dependent(rows, lambda: np.zeros_like(rows))
    assert found is not None
    narrow = np.array([[v / max(map(abs, row)) for v in row] for row in found.rows])
    inside = np.random.default_rng(1).standard_normal((50, 3))
    own, lifted = inside @ narrow.T, inside @ found.lift.T @ rows.T
    assert (np.sign(own) == np.sign(lifted)).all()


def test_neighbouring_chambers_of_many_hyperplanes_have_different_keys() -> None:
    """Rows of four words that differ in two bits anywhere."""
    pairs = np.array(list(itertools.combinations(range(256), 2)))
    signs = np.zeros((len(pairs), 256), dtype=bool)
    signs[np.arange(len(pairs)), pairs[:, 0]] = True
    signs[np.arange(len(pairs)), pairs[:, 1]] = True
    assert len(np.unique(tree._keys(signs))) == len(pairs)
