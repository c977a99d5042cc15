"""The drop-in against exact sets: what passes is right; what is right passes or is undecided."""

from fractions import Fraction

import pytest
import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from torch.autograd.gradcheck import GradcheckError

from clarke.testing import gradcheck
from reference import KNOWN, ad_gradient, cases, contains, to_torch


def answer(program, point):
    """Whether it passes, and what it says if not."""
    x = torch.tensor([float(v) for v in point], dtype=torch.float64, requires_grad=True)
    try:
        return gradcheck(program, x), ""
    except GradcheckError as error:
        return False, str(error)


def is_right(expr, point, bouligand):
    """Whether AD's gradient is in the set, thirds and the like taken for what they round."""
    gradient = [Fraction(v).limit_denominator(10**6) for v in ad_gradient(expr, point)]
    return contains(bouligand, gradient)


@settings(max_examples=20, deadline=None)
@given(case=st.integers(1, 3).flatmap(lambda n: cases(n_vars=n, max_kinks=3)))
def test_random_programs(case):
    assume(case.touched)
    right = is_right(case.expr, case.point, case.bouligand)
    passed, why = answer(to_torch(case.expr), case.point)
    event(f"right: {right}, passed: {passed}")
    if passed:
        assert right
    elif right:
        # A program may be undecided, or smooth and too close to its own other kinks for finite
        # differences (never so here: coordinates are multiples of 1/2).
        assert "neither right nor wrong" in why


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_known_sets(known):
    right = is_right(known.expr, known.point, known.bouligand)
    passed, why = answer(to_torch(known.expr), known.point)
    if passed:
        assert right
    elif right:
        assert "neither right nor wrong" in why
    if known.affine and not right:
        assert "wrong gradient" in why
