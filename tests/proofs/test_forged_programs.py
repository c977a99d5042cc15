"""Forged certificates of random programs, against exact arithmetic: what verifies is true.

Short by default; `CLARKE_FUZZ=N` tries N programs (marker `fuzz`).
"""

import os
import random
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from clarke.constraints import flatten, unflatten
from clarke.decide import Certificate, Witness
from clarke.decide.refute import Separation
from clarke.decide.witnessed import Witnessed
from clarke.steering import select_along, selected_gradient
from reference import cases, contains, to_torch
from reference.forgery import altered, forgeries

pytestmark = pytest.mark.fuzz

NUMBER = int(os.environ.get("CLARKE_FUZZ", "0")) or 4
MANY = settings(max_examples=NUMBER, deadline=None, suppress_health_check=list(HealthCheck))
LARGEST_DENOMINATOR = 1 << 12
TRIES = 12


def judged(case):
    x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
    return clarke.check(to_torch(case.expr), (x,), seconds=None)


def claim_holds(proof, case):
    """Whether what a certificate says of a gradient is so, in exact arithmetic."""
    flat = flatten(proof.gradient)
    exact = tuple(Fraction(g).limit_denominator(LARGEST_DENOMINATOR) for g in flat.tolist())
    return contains(case.bouligand, exact) is not isinstance(proof.argument, Separation)


def crossed(proof, other, numbers):
    """A certificate made of parts of two."""
    parts = [(other, f.name) for f in fields(proof) if f.name not in ("seal", "argument")]
    parts += [(other.argument, f.name) for f in fields(proof.argument)]
    taken = {n: getattr(whole, n) for whole, n in parts if numbers.random() < 0.4}
    return altered(proof, **taken).sealed()


def owner(proof, own, foreign, other):
    return other if proof.program is foreign.program else own


@MANY
@given(own=cases(n_vars=2, max_kinks=4), other=cases(n_vars=2, max_kinks=4), seed=st.integers(0))
def test_what_verifies_is_true(own, other, seed):
    """Single changes, and certificates put together of two: none proves what is not so."""
    numbers = random.Random(seed)  # noqa: S311 - no secret
    mine, foreign = judged(own).certificate, judged(other).certificate
    if mine is None or foreign is None:
        return
    assert mine.verify()
    same = type(mine.argument) is type(foreign.argument)
    # Of two equal programs one in the place of the other is no change.
    every = forgeries(mine, foreign if same else mine)
    changed = [f for f in every if f.resealed().seal != mine.seal]
    assert not any(f.proof.verify() for f in changed)
    tried = [f.resealed() for f in numbers.sample(changed, min(TRIES, len(changed)))]
    tried += [crossed(mine, foreign, numbers) for _ in range(TRIES if same else 0)]
    for forged in tried:
        if forged.verify():
            assert claim_holds(forged, owner(forged, own, foreign, other) if same else own)


@MANY
@given(case=cases(n_vars=2, max_kinks=4), seed=st.integers(0))
def test_a_wrong_gradient_cannot_be_proved_right(case, seed):
    report = judged(case)
    if not isinstance(report.certificate.argument, Separation):
        return
    program = report.certificate.program
    generator = torch.Generator().manual_seed(seed % 2**32)
    claimed = tuple(g.to(torch.float64) for g in report.gradient)
    for witness in made_up(program, claimed, generator):
        for tolerance in (1e-12, 1e-7):  # of programs in float64
            room = tuple(torch.full_like(p, tolerance) for p in program.point)
            forged = Certificate(program, claimed, Witnessed((witness,), (1.0,), room))
            assert not forged.sealed().verify()


def made_up(program, claimed, generator):
    """Witnesses of a gradient that has none: without rows, with rows of others, with any pieces."""
    nothing = np.zeros(0), np.zeros(0, dtype=np.int64)
    for _ in range(3):
        direction = tuple(
            torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in program.point
        )
        choices, _ = select_along(program, direction)
        true = selected_gradient(program, choices)
        count = program.analysis.count
        for pieces in ({}, choices):
            for gradient in (claimed, true):
                yield Witness(direction, pieces, gradient, *nothing)
                yield Witness(direction, pieces, gradient, np.ones(count), np.arange(count))


@MANY
@given(case=cases(n_vars=2, max_kinks=4))
def test_a_right_gradient_cannot_be_refuted(case):
    right = judged(case)
    if not right.correct:
        return
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    wrong = clarke.check(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), (x,), seconds=None)
    program, proof = right.certificate.program, wrong.certificate
    assert isinstance(proof.argument, Separation)
    gradient = flatten(right.gradient)
    limits = proof.argument.limits
    for _ in range(3):
        limits = replace(limits, base=limits.base + 1.0)
        near = limits.place(gradient, proof.argument.allowed)
        if near.direction is None:
            continue
        apart = Separation(
            limits=limits,
            direction=near.direction,
            gap=near.gap,
            distance=near.distance,
            allowed=proof.argument.allowed,
        )
        forged = Certificate(program, unflatten(gradient, program.point), apart)
        assert not forged.sealed().verify()
