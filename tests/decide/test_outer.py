"""The outer estimate against exact sets: it contains them, and is them where it says so."""

import os
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from clarke import Verdict
from clarke.constraints import flatten
from clarke.decide import estimated
from clarke.decide.apart import refute_outside, regular_in_parts
from clarke.decide.normal import outer_estimate
from clarke.errors import BudgetError
from clarke.prepare import prepared
from clarke.steering import Program, analyse
from reference import ad_gradient, bouligand_subset, cases, contains, selections, to_torch

EVERY = list(HealthCheck)
FACTORS = (3, -1, 2, -2, 1, 5)
FUZZ = int(os.environ.get("CLARKE_FUZZ", "0"))


def estimate(function, inputs, seed=0):
    """The outer estimate of a program, and AD's gradient."""
    with prepared(function, inputs, None) as run:
        program = Program(analyse(run.trace, run.registry), run.slots)
        generator = torch.Generator().manual_seed(seed)
        return outer_estimate(program, generator), program, flatten(run.gradient)


def rational(vector):
    """The fractions that floats of small programs stand for."""
    return tuple(Fraction(float(v)).limit_denominator(1 << 12) for v in vector)


def own_gradient(case):
    return rational(ad_gradient(case.expr, case.point))


def tensor(point):
    return torch.tensor([float(p) for p in point], dtype=torch.float64, requires_grad=True)


def hold_against(case, exact, seen, *, every=None):
    """Compare supports in random directions, and what follows for AD's gradient."""
    try:
        outer, program, gradient = estimate(to_torch(case.expr), (tensor(case.point),))
    except BudgetError as error:
        seen[str(error)] += 1
        return
    seen["estimated"] += 1
    points = np.array([[float(v) for v in p] for p in exact])
    room = 1e-7 * max(1.0, np.abs(points).max(initial=0.0), np.abs(gradient).max(initial=0.0))
    regular = regular_in_parts(outer)
    seen["regular"] += regular
    random = np.random.default_rng(0)
    for _ in range(12):
        direction = random.integers(-3, 4, points.shape[1]).astype(float)
        value, element = outer.extreme(direction)
        assert value == pytest.approx(element @ direction, abs=room)
        largest = (points @ direction).max()
        assert value >= largest - room
        if regular:
            assert value == pytest.approx(largest, abs=room)
    inside = contains(exact, own_gradient(case))
    if outer.atoms.shares is not None:
        seen["AD's shares"] += 1
        assert outer.mean(outer.atoms.shares) == pytest.approx(gradient, abs=room)
        if regular:
            assert inside
    proof = refute_outside(outer, program, gradient, 1e-9)
    if proof is not None:
        seen["refuted"] += 1
        assert not inside
        assert every is None or not contains(every, own_gradient(case))
        assert proof.verify()
    elif not inside:
        seen["wrong, not refuted"] += 1


@pytest.mark.fuzz
@pytest.mark.parametrize("native", [True, False])
def test_piecewise_affine_programs(native):
    seen = Counter()

    @settings(max_examples=max(40, FUZZ), deadline=None, suppress_health_check=EVERY)
    @given(st.integers(1, 4).flatmap(lambda n: cases(n_vars=n, max_kinks=8, native=native)))
    def run(case):
        hold_against(case, case.bouligand, seen)

    run()
    assert seen["estimated"] >= 0.8 * max(40, FUZZ) / 2
    assert seen["regular"] > 0


@pytest.mark.fuzz
def test_curved_programs():
    """Of these a part of the set is known, and all selections, active or not."""
    seen = Counter()

    @settings(max_examples=max(25, FUZZ), deadline=None, suppress_health_check=EVERY)
    @given(case=cases(n_vars=2, max_kinks=4, polynomial=True))
    def run(case):
        some = set(bouligand_subset(case.expr, case.point, 60))
        if not some:
            return
        try:
            outer, program, gradient = estimate(to_torch(case.expr), (tensor(case.point),))
        except BudgetError:
            return
        seen["estimated"] += 1
        exact = own_gradient(case)
        every = {cell.gradient for cell in selections(case.expr, case.point)}
        proof = refute_outside(outer, program, gradient, 1e-9)
        if proof is not None:
            seen["refuted"] += 1
            assert not contains(some, exact)
        if regular_in_parts(outer) and outer.atoms.shares is not None:
            seen["regular"] += 1
            assert contains(every, exact)

    run()
    assert seen["estimated"] > 0


@pytest.mark.fuzz
@pytest.mark.parametrize("native", [True, False])
def test_verdicts_where_the_estimate_comes_first(monkeypatch, native):
    monkeypatch.setattr(estimated, "_LARGE", -1)
    seen = Counter()

    @settings(max_examples=max(20, FUZZ), deadline=None, suppress_health_check=EVERY)
    @given(st.integers(1, 4).flatmap(lambda n: cases(n_vars=n, max_kinks=8, native=native)))
    def run(case):
        report = clarke.check(to_torch(case.expr), (tensor(case.point),))
        inside = contains(case.bouligand, own_gradient(case))
        seen[report.verdict, report.theorem] += 1
        assert report.correct in (inside, None)
        if report.correct is not None:
            assert report.certificate.verify()
        if report.verdict is Verdict.NOT_CLARKE and report.element is not None:
            assert contains(case.bouligand, rational(report.element[0].tolist()))

    run()


@pytest.mark.fuzz
def test_sums_of_programs_of_variables_of_their_own():
    """The set is the product: wrong as soon as one is, right if all are."""
    seen = Counter()
    several = st.lists(
        st.integers(1, 2).flatmap(lambda n: cases(n_vars=n, max_kinks=5, native=True)),
        min_size=2,
        max_size=6,
    )

    @settings(max_examples=max(20, FUZZ), deadline=None, suppress_health_check=EVERY)
    @given(several)
    def run(drawn):
        programs = [to_torch(case.expr) for case in drawn]

        def whole(*inputs):
            return sum(k * f(x) for k, f, x in zip(FACTORS, programs, inputs, strict=False))

        report = clarke.check(whole, tuple(tensor(case.point) for case in drawn))
        inside = all(contains(case.bouligand, own_gradient(case)) for case in drawn)
        seen[inside, report.correct] += 1
        seen[report.theorem] += 1
        assert report.correct in (inside, None)
        if report.correct is not None:
            assert report.certificate.verify()

    run()
    assert seen[True, None] + seen[False, None] <= 0.1 * max(20, FUZZ), seen
