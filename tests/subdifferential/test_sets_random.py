"""Every answer of a set against brute force: layered programs, curved, masked, scaled 1e-8 to 1e8.

`CLARKE_FUZZ=N` tries N programs (marker `fuzz`); a few are tried in every run.
"""

import itertools
import os
from collections import Counter
from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch

import clarke
from clarke.decide import source
from clarke.numerics import VERTEX_TOLERANCE
from reference import contains
from reference.hull import exact, farkas, strict_direction
from reference.layered import layered

NUMBER = int(os.environ.get("CLARKE_FUZZ", "0"))
START = int(os.environ.get("CLARKE_FUZZ_START", "0"))
FEW = 10
CLOSE = 2.0**-44  # of the largest value of an entry: what roundings of a replay may leave


def array(points):
    return np.array([[float(v) for v in p] for p in points])


def matched(points, others, room):
    """For every point, whether another is the same but for rounding."""
    gaps = np.abs(points[:, None, :] - others[None, :, :])
    return (gaps <= room).all(axis=2).any(axis=1)


def has_descent(program, room):
    """Whether a direction goes down to first order, exactly: some cell has one inside.

    By more than what is left if every entry of the gradient is off by its room.
    """
    size = len(program.base)
    corners = list(itertools.product((-1, 1), repeat=size)) if any(room) else [(0,) * size]
    for cell in program.cells:
        # In the coordinates of the cells; units only stretch them.
        gradient = program.in_variables(cell.gradient)
        down = [
            [
                -(g + c * Fraction(float(r))) / s
                for g, c, r, s in zip(gradient, corner, room, program.units, strict=True)
            ]
            for corner in corners
        ]
        if any(gradient) and strict_direction([*cell.rows, *down], size) is not None:
            return True
    return False


class Compared:
    """One program's answers, one after the other, held against the exact set."""

    def __init__(self, seed):
        self.program = layered(seed)
        self.random = Random(seed)  # noqa: S311 - repeatable, no secret
        self.exact = sorted(self.program.bouligand)
        self.points = array(self.exact)
        self.sizes = np.abs(self.points).max(axis=0)
        self.room = CLOSE * self.sizes
        self.x = self.program.point.requires_grad_()
        self.found = clarke.subdifferential(self.program, (self.x,))

    @property
    def is_even(self):
        """Whether entries have one size, so that lengths and distances mean something."""
        nonzero = self.sizes[self.sizes > 0]
        return not len(nonzero) or nonzero.max() <= 1e6 * nonzero.min()

    def lists(self):
        found = self.found.found().numpy().reshape(-1, self.points.shape[1])
        assert matched(found, self.points, self.room).all(), "an element that is none"
        if not self.found.complete:
            return False
        assert matched(self.points, found, self.room).all(), "an element is missing"
        corners = self.found.vertices().numpy()
        assert matched(corners, self.points, self.room).all()
        clear, all_corners = 0, 0
        thick = np.maximum(self.room, VERTEX_TOLERANCE * np.ptp(self.points, axis=0))
        for e in self.exact:
            rest = [o for o in self.exact if o != e]
            all_corners += not rest or not contains(rest, e)
            if not rest or self.is_far(e, rest, thick):
                clear += 1
                assert matched(array([e]), corners, self.room).all(), "a vertex is missing"
        for i, corner in enumerate(corners):
            rest = np.delete(corners, i, axis=0)
            if len(rest):
                assert not matched(corner[None], rest, self.room).any(), "a vertex twice"
        assert clear <= len(corners) <= all_corners, "more vertices than corners"
        streamed = torch.cat(list(self.found.stream(7))).numpy()
        assert matched(streamed, self.points, self.room).all()
        assert matched(self.points, streamed, self.room).all()
        assert self.found.count() >= len(found)
        return True

    def ask(self, vector, wanted, *, verify=False):
        """Membership of an exact vector, with its certificate."""
        given = torch.tensor([float(v) for v in vector], dtype=torch.float64)
        told = self.found.contains(given)
        if self.found.complete:
            assert told.inside is wanted, (vector, told)
        assert told.inside in (wanted, None), (vector, told)
        if verify and told.inside is not None:
            assert told.verify(), (vector, told)

    def members(self):
        for i in range(3):
            a, b = self.random.choice(self.exact), self.random.choice(self.exact)
            self.ask([(p + q) / 2 for p, q in zip(a, b, strict=True)], True, verify=i == 0)
        gradient = exact(self.found.gradient[0].tolist())
        if contains(self.exact, gradient) or self.is_far(gradient):
            self.ask(gradient, contains(self.exact, gradient))
        corner = self.random.choice(self.exact)
        centre = [sum(column) / len(self.exact) for column in zip(*self.exact, strict=True)]
        beyond = [c + (c - m) / 64 for c, m in zip(corner, centre, strict=True)]
        if self.is_far(beyond):
            self.ask(beyond, False, verify=True)

    def is_far(self, vector, points=None, room=None):
        """Whether a vector is outside of a hull by more than rounding, exactly.

        Outside of its sum with a cross-polytope that holds a box of the size of roundings.
        """
        n = len(vector)
        columns = [(*e, Fraction(1), Fraction(0)) for e in points or self.exact]
        for i, wide in enumerate(64 * n * (self.room if room is None else room)):
            for sign in (1, -1):
                unit = [Fraction(0)] * n
                unit[i] = sign * Fraction(float(wide))
                columns.append((*unit, Fraction(0), Fraction(1)))
        columns.append((*[Fraction(0)] * n, Fraction(0), Fraction(1)))
        return farkas(columns, (*vector, Fraction(1), Fraction(1)))[0] is None

    def directions(self):
        for _ in range(4):
            d = [Fraction(self.random.choice((0, 1, -1, 2))) / s for s in self.program.units]
            wanted = self.program.directional(d)
            told = self.found.directional(torch.tensor([float(e) for e in d]).double())
            size = float(self.sizes @ np.abs([float(e) for e in d]))
            assert abs(told - float(wanted)) <= CLOSE * size * len(d), (d, told, float(wanted))

    def stationary(self):
        zero = [Fraction(0)] * len(self.sizes)
        told = self.found.is_stationary()
        inside = contains(self.exact, zero)
        if self.found.complete:
            assert told.stationary is inside or not self.is_far(zero)
        assert told.stationary in (inside, None) or not self.is_far(zero)
        down = has_descent(self.program, 0 * self.room)
        clearly = has_descent(self.program, 64 * self.room)
        if told.descent is not None:
            assert down
            along = [Fraction(float(e)) for e in told.descent[0]]
            assert self.program.directional(along) < 0
            assert told.slope < 0
        elif self.found.complete and self.is_even:
            assert not clearly, "a descent was missed"
        if not self.found.complete:
            return
        least = self.found.is_local_minimum()
        if least.minimum and (inside or self.is_far(zero)):
            assert not down
        if least.minimum is False and least.order == 1:
            assert down
        if clearly and self.is_even:
            assert least.minimum is not True

    def smallest(self):
        if not self.found.complete:
            return
        (smallest,) = self.found.min_norm()
        s = smallest.numpy()
        size = float(np.abs(self.points).max(initial=1e-300))
        assert (self.points @ s).min() >= s @ s - 1e-7 * size * size


def run(seeds, seen):
    for seed in seeds:
        try:
            compared = Compared(seed)
        except (clarke.BudgetError, clarke.UnsupportedError) as error:
            seen[f"refused: {str(error)[:60]}"] += 1
            continue
        try:
            seen["complete" if compared.lists() else "incomplete"] += 1
            compared.members()
            compared.directions()
            compared.stationary()
            compared.smallest()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {compared.program.layers}") from error


def test_some_programs():
    seen = Counter()
    run(range(FEW), seen)
    assert seen["complete"] >= 0.7 * FEW, seen


@pytest.mark.slow
def test_some_programs_asked_without_a_list(monkeypatch):
    monkeypatch.setattr(source, "SET_SMALL", -1)
    run(range(1000, 1000 + FEW), Counter())


@pytest.mark.fuzz
@pytest.mark.parametrize("listed", [True, False])
def test_many_programs(listed, monkeypatch):
    if not listed:
        monkeypatch.setattr(source, "SET_SMALL", -1)
    seen = Counter()
    run(range(START + 10_000, START + 10_000 + max(NUMBER, 100)), seen)
    assert seen["complete"] >= 0.7 * sum(seen.values()), seen
