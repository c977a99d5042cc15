"""Proofs that a gradient is wrong, and damaged ones that must not pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch.nn import functional as F  # noqa: N812

import clarke
from clarke import Verdict
from clarke.constraints import flatten, unflatten
from clarke.decide.refute import Separation
from reference import cases, to_torch
from reference.forgery import altered


def refuted(program, size=1):
    x = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    report = clarke.check(program, (x,))
    assert report.verdict is Verdict.NOT_CLARKE
    assert isinstance(report.certificate.argument, Separation)
    assert report.certificate.verify()
    return report


def lemma2(x):
    return (F.relu(x) - F.relu(-x)).sum()


def lemma7(x):
    u, b = x[0], x[1]
    first = torch.stack([u + b, b]).max(0).values
    return first - torch.stack([-u + b, b]).max(0).values


def damaged(proof):
    """Copies with one part replaced, each with what was done."""
    yield "direction turned round", altered(proof, direction=-proof.argument.direction)
    yield "direction of zeros", altered(proof, direction=0 * proof.argument.direction)
    limits = proof.argument.limits
    element = limits.element(tuple(0 for _ in limits.components))
    yield "a gradient of the set", replace(proof, gradient=unflatten(element, proof.gradient))
    component, *others = limits.components
    moved = replace(component, changes=component.changes + (flatten(proof.gradient) - element))
    yield (
        "a set moved to the gradient",
        altered(proof, limits=replace(limits, components=(moved, *others))),
    )


@pytest.mark.parametrize(("program", "size"), [(lemma2, 1), (lemma2, 3), (lemma7, 2)])
def test_damaged_refutations_do_not_verify(program, size):
    proof = refuted(program, size).certificate
    for damage, bad in damaged(proof):
        for forged in (bad, bad.sealed()):
            assert not forged.verify(), damage
            assert forged.defects()


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(n_vars=2, max_kinks=4))
def test_damaged_refutations_of_random_programs(case):
    x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
    report = clarke.check(to_torch(case.expr), (x,))
    assume(report.verdict is Verdict.NOT_CLARKE)
    assert report.certificate.verify()
    for damage, bad in damaged(report.certificate):
        assert not bad.sealed().verify(), damage


def test_an_exclusion_that_is_feasible_is_found():
    proof = refuted(lemma2).certificate
    component = proof.argument.limits.components[0]
    assert component.exclusions
    feasible = replace(component.exclusions[0], rows=np.abs(component.exclusions[0].rows))
    limits = replace(
        proof.argument.limits, components=(replace(component, exclusions=(feasible,)),)
    )
    (defect,) = altered(proof, limits=limits).sealed().defects()
    assert "not those of the certificate" in defect


def test_a_set_that_lacks_elements_is_found():
    """With one element taken away a direction separates; gradients nearby tell, and the rest."""
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(lambda x: x.abs().sum() + 0 * lemma2(x), (x,))
    corner = torch.ones(2, dtype=torch.float64)
    assert found.contains(corner)
    wrong = refuted(lambda x: lemma2(x) + lemma2(x) + F.relu(x).sum(), 2).certificate
    own = wrong.argument.limits
    keep = own.components[0]
    less = replace(keep, changes=keep.changes[:1], cells=keep.cells[:1])
    far = less.changes[0] + own.base + sum(c.changes[0] for c in own.components[1:])
    other = own.element(tuple(len(c.changes) - 1 for c in own.components))
    assert np.abs(far - other).max() > 0.5
    direction = (other - far) / np.linalg.norm(other - far)
    limits = replace(
        own,
        components=tuple(
            replace(c, changes=c.changes[:1], cells=c.cells[:1]) for c in own.components
        ),
    )
    vector = unflatten(other, wrong.gradient)
    forged = altered(wrong, gradient=vector, limits=limits, direction=direction, gap=1.0)
    asked = forged.program, vector
    assert forged.argument.own_defects(*asked, run=False) == ()
    assert "nearby" in forged.argument.own_defects(*asked, run=True)[0]
    assert "not those of the certificate" in forged.sealed().defects(run=False)[0]


def test_only_kinks_that_act_together_are_named():
    """The kink of |y| is touched as well and has no part in the error."""
    report = refuted(lambda x: x[1].abs() + lemma2(x[:1]), 2)
    assert [c.operation for c in report.culprits] == ["relu", "relu"]
    assert "abs" not in str(report.culprits)


def test_the_distance_is_that_to_the_set():
    proof = refuted(lambda x: 3 * lemma2(x)).certificate.argument
    assert proof.distance == pytest.approx(3)
    assert proof.gap == pytest.approx(3)
    assert proof.points.tolist() == [[3.0]]


def test_raising_carries_the_report():
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    with pytest.raises(clarke.WrongGradientError) as caught:
        clarke.check(lemma2, (x,), raise_exception=True)
    assert caught.value.report.element[0].tolist() == [1]


@pytest.mark.parametrize("bend", [lambda x, y: x * y, lambda x, y: x * x, lambda x, y: -y * y])
def test_a_right_value_where_no_direction_proves_one(bend):
    """relu(u) - relu(-u) - u is zero, so z is curved only, and the gradient of abs(z) is 0."""

    def program(w):
        x, y = w
        u = x + y + x * y
        z = torch.relu(u) - torch.relu(-u) - u + bend(x, y)
        return torch.where(z >= 0, z, -z)

    report = clarke.check(program, (torch.zeros(2, dtype=torch.float64, requires_grad=True),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()
    (element,) = report.element
    assert element.tolist() == [0.0, 0.0]
