"""Cones of many rays: the time limit is asked as often as all rays are gone through."""

from itertools import combinations, count
from random import Random

import pytest

from clarke.arrangement import primitive
from clarke.deadline import Deadline
from clarke.decide.cone import Cone
from clarke.errors import OutOfTimeError


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def of_rows(rows):
    cone = Cone.whole(len(rows[0]))
    kept = []
    for row in rows:
        cut = cone.cut(row)
        if cut is not None:
            cone = cut
            kept.append(row)
    return cone, kept


def extreme(rays, row):
    """The same cut, every pair of rays held against all others."""
    found = {primitive(r.vector) for r in rays if dot(row, r.vector) >= 0}
    for p, n in combinations(rays, 2):
        pv, nv = dot(row, p.vector), dot(row, n.vector)
        common = p.tight & n.tight
        if pv * nv < 0 and not any(
            r is not p and r is not n and r.tight & common == common for r in rays
        ):
            size, other = abs(nv), abs(pv)
            mixed = [size * a + other * b for a, b in zip(p.vector, n.vector, strict=True)]
            found.add(primitive(mixed))
    return found


def test_rays_are_those_of_all_pairs():
    numbers = Random(0)  # noqa: S311 - which rows are tried
    more = 0
    for _ in range(150):
        n = numbers.randint(2, 5)
        rows = [tuple(numbers.randint(-2, 2) for _ in range(n)) for _ in range(n + 6)]
        *first, last = [r for r in rows if any(r)]
        cone, _ = of_rows(first)
        cut = cone.cut(last)
        if cut is None or cone.lines:
            continue
        assert {primitive(r.vector) for r in cut.rays} == extreme(cone.rays, last)
        more += len(cut.rays) > n
    assert more > 20


@pytest.fixture
def broad():
    """A cone with thousands of rays: over a cube, each entry less than the last."""
    n = 12
    unit = [[int(i == j) for j in range(n)] for i in range(n)]
    rows = [
        tuple(unit[-1][j] + s * unit[i][j] for j in range(n)) for i in range(n - 1) for s in (1, -1)
    ]
    cone, _ = of_rows(rows)
    assert len(cone.rays) == 2 ** (n - 1)
    return cone


def test_a_cut_of_many_rays_ends_in_time(broad):
    row = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 0)
    readings = count()  # a clock that goes on by one whenever it is read
    deadline = Deadline.after(200, clock=lambda: next(readings))
    with deadline, pytest.raises(OutOfTimeError, match="cutting a cone of 2048 rays"):
        broad.cut(row, deadline)
    assert next(readings) < 210


def test_every_look_at_all_rays_asks_first(broad, monkeypatch):
    looks, asked = [], []
    monkeypatch.setattr(Cone, "_adjacent", lambda *_: looks.append(len(asked)) or False)

    class Counting(Deadline):
        def ask(self, doing="", *values):
            asked.append(doing)

    broad.cut(tuple([1] * 5 + [0] * 7), Counting(float("inf"), float("inf")))
    assert len(looks) > 100
    assert len(set(looks)) == len(looks)
