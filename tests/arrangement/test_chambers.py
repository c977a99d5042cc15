"""Chambers of arrangements: known numbers, exact brute force, floats of all sizes, forged lists."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarke.arrangement import ThinChamberError, chambers, count_chambers, integer_row
from clarke.deadline import Deadline
from clarke.decide.cone import Cone
from clarke.errors import OutOfTimeError


def reflection(n):
    units = np.eye(n, dtype=int)
    rows = [*units, *(units[i] - units[j] for i, j in itertools.combinations(range(n), 2))]
    return [tuple(r.tolist()) for r in rows]


def threshold(n):
    return [(1, *s) for s in itertools.product((0, 1), repeat=n)]


def resonance(n):
    return [s for s in itertools.product((0, 1), repeat=n) if any(s)]


def by_deletion(rows):
    """The number of chambers by deletion and restriction, in fractions."""
    lines = {tuple(v / next(w for w in r if w) for v in r) for r in rows if any(r)}
    if len(lines) < 2:
        return 2 ** len(lines)
    first, *rest = sorted(lines)
    at = next(i for i, v in enumerate(first) if v)
    on = [tuple(v - r[at] * w / first[at] for v, w in zip(r, first, strict=True)) for r in rest]
    return by_deletion(rest) + by_deletion(on)


def by_cones(rows):
    """All sign patterns, by splitting cones one after the other."""
    cells = [((), Cone.whole(len(rows[0])))]
    for row in rows:
        sides = ((True, row), (False, tuple(-v for v in row)))
        cells = [
            ((*signs, side), part)
            for signs, cone in cells
            for side, own in sides
            if (part := cone.cut(own)) is not None
        ]
    return {signs for signs, _ in cells}


def held_against(found, rows):
    """Every direction of a list has its signs, in fractions; no chamber comes twice."""
    every = np.arange(found.count)
    signs, directions = found.signs(every), found.directions(every)
    for own, direction in zip(signs.tolist(), directions.tolist(), strict=True):
        for positive, row in zip(own, rows, strict=True):
            value = sum(Fraction(v) * Fraction(d) for v, d in zip(row, direction, strict=True))
            assert (value > 0) is positive
            assert value != 0
    assert len({tuple(s) for s in signs.tolist()}) == found.count
    return {tuple(s) for s in signs.tolist()}


@pytest.mark.parametrize("n", range(1, 7))
def test_reflection_arrangements_have_as_many_chambers_as_orders(n):
    rows = reflection(n)
    assert chambers(rows).count == count_chambers(rows) == math.factorial(n + 1)
    assert chambers(rows).defects() == ""


@pytest.mark.parametrize(
    ("family", "counts"),
    [(threshold, (4, 14, 104, 1882)), (resonance, (2, 6, 32, 370, 11292))],
)
def test_known_sequences(family, counts):
    for n, wanted in enumerate(counts, start=1):
        rows = family(n)
        found = chambers(rows)
        assert found.count == count_chambers(rows) == wanted
        assert found.defects() == ""


def test_counting_needs_no_list():
    assert count_chambers(reflection(11)) == math.factorial(12)
    assert count_chambers(threshold(5)) == 94572


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.tuples(*[st.integers(-2, 2)] * n).filter(any), min_size=1, max_size=7)
    )
)
def test_integer_rows_with_repeats_against_cones(rows):
    rows = [integer_row(r) for r in rows]
    found = chambers(rows)
    assert held_against(found, rows) == by_cones(rows)
    exact = [tuple(map(Fraction, r)) for r in rows]
    assert count_chambers(rows) == by_deletion(exact) == found.count
    assert found.defects() == ""


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), scaled=st.sampled_from(["rows", "columns", "no"]))
def test_floats_of_all_sizes_against_cones(seed, scaled):
    generator = np.random.default_rng(seed)
    m, n = generator.integers(1, 8), generator.integers(1, 5)
    values = generator.integers(-2, 3, (m, n)) * generator.choice([1.0, 0.5, 3.0], (m, n))
    sizes = 2.0 ** generator.integers(-26, 27, (m, 1) if scaled == "rows" else (1, n))
    values = values * sizes if scaled != "no" else values
    rows = [integer_row(r) for r in values.tolist() if any(r)]
    if rows:
        found = chambers(rows)
        assert held_against(found, rows) == by_cones(rows)
        assert found.defects() == ""


def test_chambers_thinner_than_rounding_are_refused():
    """Exactly there is one between 1 and 1 + 2**-60, in which no two floats have their ratio."""
    rows = [(1 << 60, -1), ((1 << 60) + 1, -1), (1, 0), (0, 1)]
    assert count_chambers(rows) == 8
    with pytest.raises(ThinChamberError):
        chambers([*[(a, b, 0) for a, b in rows], (1, 1, 1), (1, -2, 1)])


def test_forged_lists_are_found_out():
    found = chambers(resonance(4))
    half = found.half
    fewer = replace(found, half=replace(half, signs=half.signs[1:], points=half.points[1:]))
    assert fewer.defects() == "chambers are missing"
    twice = np.concatenate([[1], np.arange(1, len(half.signs))])
    double = replace(found, half=replace(half, signs=half.signs[twice], points=half.points[twice]))
    assert double.defects() == "a chamber is listed twice"
    turned = replace(found, half=replace(half, points=half.points[::-1].copy()))
    assert turned.defects() == "a direction is not in its chamber"


def test_time_runs_out():
    clock = itertools.count().__next__
    with pytest.raises(OutOfTimeError, match=r"chambers of the first \d+ of 28 hyperplanes"):
        chambers(reflection(7), Deadline.after(20, clock))


@pytest.mark.slow
def test_large_families():
    assert chambers(threshold(5)).count == 94572
    assert chambers(reflection(7)).count == 40320
