"""Random piecewise affine programs against exact brute force: verdict, set, gradient."""

from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from clarke import Verdict
from reference import ad_gradient, bouligand_subset, cases, contains, selections, to_torch

DENOMINATOR = 1 << 12
EVERY = list(HealthCheck)


def rational(vector):
    return tuple(Fraction(float(v)).limit_denominator(DENOMINATOR) for v in vector)


def flat(parts):
    return rational(torch.cat([p.reshape(-1) for p in parts]).tolist())


def vertices(points):
    kept = list(points)
    for p in points:
        others = [q for q in kept if q != p]
        if others and contains(others, p):
            kept = others
    return set(kept)


def tensor(point):
    return torch.tensor([float(p) for p in point], dtype=torch.float64, requires_grad=True)


def compare(case, seen):
    """All that clarke says of one program; asserts that none of it contradicts the exact set."""
    x, program = tensor(case.point), to_torch(case.expr)
    exact, gradient = case.bouligand, rational(ad_gradient(case.expr, case.point))
    inside = contains(exact, gradient)
    report = clarke.check(program, (x,))
    seen[report.verdict] += 1
    if report.verdict is Verdict.SMOOTH:
        assert exact == {gradient}
    elif report.verdict is Verdict.BOULIGAND:
        assert gradient in exact
    elif report.verdict is Verdict.CLARKE:
        assert inside
    elif report.verdict is Verdict.NOT_CLARKE:
        assert not inside
        assert flat(report.element) in exact
        assert report.certificate.verify()
    else:
        assert report.verdict is Verdict.UNDECIDED
    found = clarke.subdifferential(program, (x,))
    proved = {rational(v) for v in found.found().tolist()}
    assert proved <= exact
    if found.complete:
        assert proved == exact
        assert {rational(v) for v in found.vertices().tolist()} == vertices(exact)
        smallest = torch.cat([p.reshape(-1) for p in found.min_norm()])
        products = found.bouligand() @ smallest
        assert float(products.min()) >= float(smallest @ smallest) - 1e-7
    else:
        seen["incomplete"] += 1
    membership = found.contains(torch.tensor([float(g) for g in gradient], dtype=torch.float64))
    assert membership.inside in (inside, None)
    if membership.inside is not None:
        assert membership.verify()
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        assert flat(clarke.grad(program, (x,), generator=generator)) in exact


def share_of(seen, *names):
    total = sum(count for name, count in seen.items() if isinstance(name, Verdict))
    return sum(seen[name] for name in names) / max(total, 1)


def number(default):
    """How many examples: the profile's own number where it asks for more."""
    return max(default, settings.default.max_examples if settings.default.max_examples > 50 else 0)


def test_operations_with_kinks_of_their_own():
    """Nothing stays undecided: the switching functions are affine, so first order is exact."""
    seen = Counter()

    @settings(max_examples=number(8), deadline=None, suppress_health_check=EVERY)
    @given(st.integers(1, 4).flatmap(lambda n: cases(n_vars=n, max_kinks=8, native=True)))
    def run(case):
        compare(case, seen)

    run()
    assert share_of(seen, Verdict.UNDECIDED, "incomplete") == 0, seen


@pytest.mark.slow
def test_kinks_hidden_in_arithmetic():
    """Masks, signs and where: the few that stay undecided are signs that vanish on a region."""
    seen = Counter()

    @settings(max_examples=number(5), deadline=None, suppress_health_check=EVERY)
    @given(st.integers(1, 4).flatmap(lambda n: cases(n_vars=n, max_kinks=8)))
    def run(case):
        compare(case, seen)

    run()
    # About one in a hundred; of five examples, two that Hypothesis draws in a row may be alike.
    assert share_of(seen, Verdict.UNDECIDED) <= 0.4, seen
    assert share_of(seen, "incomplete") <= 0.4, seen


@pytest.mark.slow
@settings(max_examples=number(8), deadline=None, suppress_health_check=EVERY)
@given(case=cases(n_vars=2, max_kinks=4, polynomial=True))
def test_curved_programs_lie_between_their_brackets(case):
    """Known elements are never refuted; what no selection gives is never called right."""
    x, program = tensor(case.point), to_torch(case.expr)
    gradient = rational(ad_gradient(case.expr, case.point))
    some = set(bouligand_subset(case.expr, case.point, 60))
    every = {cell.gradient for cell in selections(case.expr, case.point)}
    report = clarke.check(program, (x,))
    if report.correct:
        assert contains(every, gradient)
    if report.verdict is Verdict.NOT_CLARKE:
        assert not (some and contains(some, gradient))
        # There is none where no selection could be proved active, and those left differ.
        assert report.element is None or flat(report.element) in every
    try:
        found = clarke.subdifferential(program, (x,))
    except clarke.BudgetError as error:
        # Honest, if cautious: a mask that follows a curved difference is taken for a jump.
        if "the operation's value jumps here" not in str(error):
            raise
        return
    proved = {rational(v) for v in found.found().tolist()}
    assert proved <= every
    if found.complete:
        assert some <= proved
    for element in some:
        own = found.contains(torch.tensor([float(e) for e in element], dtype=torch.float64))
        assert own.inside is not False
    assert flat(clarke.grad(program, (x,))) in every
