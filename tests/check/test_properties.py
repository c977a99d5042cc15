"""Random programs on their kinks: no verdict contradicts exact arithmetic, no bad proof passes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import clarke
from clarke import Verdict
from clarke.decide import Certificate
from reference import KNOWN, ad_gradient, cases, contains, exact, line_gradient, to_torch
from reference.forgery import altered

FEW = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# AD's thirds are rounded; all values here have small denominators.
LARGEST_DENOMINATOR = 1 << 12
POSITIVE = (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE)


def judged(expr, point):
    x = torch.tensor([float(p) for p in point], dtype=torch.float64, requires_grad=True)
    return clarke.check(to_torch(expr), (x,))


def unrounded(gradient):
    return tuple(entry.limit_denominator(LARGEST_DENOMINATOR) for entry in gradient)


def contradiction(verdict, bouligand, gradient):
    """Why a verdict is false, or None."""
    if verdict is Verdict.SMOOTH and bouligand != {gradient}:
        return "called smooth"
    if verdict is Verdict.BOULIGAND and gradient not in bouligand:
        return "called a limiting gradient"
    if verdict is Verdict.CLARKE and not contains(bouligand, gradient):
        return "called a Clarke gradient"
    if verdict is Verdict.NOT_CLARKE and contains(bouligand, gradient):
        return "called wrong"
    return None


@MANY
@given(case=st.integers(1, 3).flatmap(lambda n: cases(n_vars=n, max_kinks=5)))
def test_no_verdict_contradicts_exact_arithmetic(case):
    report = judged(case.expr, case.point)
    gradient = unrounded(ad_gradient(case.expr, case.point))
    assert contradiction(report.verdict, case.bouligand, gradient) is None
    if report.verdict in POSITIVE:
        assert report.certificate.verify()


@MANY
@given(case=cases(n_vars=2, max_kinks=3, polynomial=True))
def test_witnesses_of_curved_programs(case):
    """Along each witness the exact program has the gradient that the certificate claims."""
    report = judged(case.expr, case.point)
    assume(report.verdict in (Verdict.BOULIGAND, Verdict.CLARKE))
    for witness in report.certificate.witnesses:
        claimed = torch.cat([g.reshape(-1) for g in witness.gradient])
        direction = exact(torch.cat([d.reshape(-1) for d in witness.direction]).tolist())
        true = line_gradient(case.expr, case.point, direction)
        if true is not None:
            torch.testing.assert_close(claimed, torch.tensor([float(t) for t in true]).double())


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_cases_known_on_paper(known):
    report = judged(known.expr, known.point)
    gradient = unrounded(ad_gradient(known.expr, known.point))
    assert contradiction(report.verdict, known.bouligand, gradient) is None
    if report.verdict in POSITIVE:
        assert report.certificate.verify()


def with_witness(certificate, number, **changes):
    witnesses = list(certificate.witnesses)
    witnesses[number] = replace(witnesses[number], **changes)
    return altered(certificate, witnesses=tuple(witnesses))


def corruptions(certificate: Certificate):
    """Damaged copies, each with what was done to it."""
    shift = tuple(g + 1 for g in certificate.gradient)
    yield "another gradient", replace(certificate, gradient=shift)
    count = len(certificate.witnesses)
    yield "weights that do not add up", altered(certificate, weights=(1.5,) + (0.0,) * (count - 1))
    yield "a weight too few", altered(certificate, weights=certificate.weights[1:])
    yield "no witness", altered(certificate, witnesses=(), weights=())
    for i, witness in enumerate(certificate.witnesses):
        if len(witness.rows):
            back = tuple(-d for d in witness.direction)
            yield "direction turned round", with_witness(certificate, i, direction=back)
            yield "rows turned round", with_witness(certificate, i, rows=-witness.rows)
            yield (
                "no rows",
                with_witness(certificate, i, rows=witness.rows[:0], kinks=witness.kinks[:0]),
            )
        more = tuple(g + 1 for g in witness.gradient)
        if certificate.weights[i] > 1e-6:
            yield "a gradient of another piece", with_witness(certificate, i, gradient=more)
    if count > 1 and abs(certificate.weights[0] - certificate.weights[1]) > 1e-3:
        a, b, *rest = certificate.weights
        yield "weights exchanged", altered(certificate, weights=(b, a, *rest))


@FEW
@given(case=cases(n_vars=2, max_kinks=4))
def test_damaged_certificates_do_not_verify(case):
    report = judged(case.expr, case.point)
    assume(report.verdict in POSITIVE)
    for damage, certificate in corruptions(report.certificate):
        for forged in (certificate, certificate.sealed()):
            assert not forged.verify(), damage
            assert forged.defects()


@pytest.mark.parametrize(
    ("program", "inputs"),
    [
        (lambda x: torch.relu(x).sum(), 1),
        (lambda x: (torch.relu(x) - torch.relu(2 * x)).sum(), 1),
        (lambda x: torch.stack([x[0], 2 * x[1], x[0] + x[1]]).amax(0), 2),
    ],
)
def test_a_direction_turned_round_is_found(program, inputs):
    x = torch.zeros(inputs, dtype=torch.float64, requires_grad=True)
    certificate = clarke.check(program, (x,)).certificate
    assert certificate.verify()
    first = certificate.witnesses[0]
    turned = with_witness(certificate, 0, direction=tuple(-d for d in first.direction))
    assert "has changed since it was made" in turned.defects()[0]
    assert turned.sealed().defects() == ("witness 0: the direction does not satisfy all rows",)


def test_choices_exchanged_between_witnesses():
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    factors = torch.tensor([1.0, 2.0], dtype=torch.float64)
    certificate = clarke.check(lambda x: (x.abs() * factors).sum(), (x,)).certificate
    assert certificate.verify()
    a, b, *rest = certificate.witnesses
    mixed = (
        replace(a, direction=b.direction, gradient=a.gradient),
        replace(b, direction=a.direction, gradient=b.gradient),
        *rest,
    )
    assert not altered(certificate, witnesses=mixed).sealed().verify()
