"""What torch.distributions asks of its arguments decides no branch: the other one raises."""

import importlib

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, constraints

import clarke
from clarke.verdict import Verdict


def likelihood_by_factor(x):
    factor = torch.diag_embed(torch.exp(x[:2])) + torch.tril(x[2] * torch.ones(2, 2), -1)
    return -MultivariateNormal(x[:2], scale_tril=factor).log_prob(torch.ones(2))


def likelihood_by_covariance(x):
    a = x.reshape(1, 3)
    own = a.t() @ a + torch.eye(3)
    return -MultivariateNormal(x, covariance_matrix=own).log_prob(torch.ones(3))


def at_the_mean(x):
    return -Normal(x, 1 + x.square()).log_prob(x.detach()).sum()


@pytest.mark.parametrize("f", [likelihood_by_factor, likelihood_by_covariance, at_the_mean])
def test_a_distribution_that_looks_at_its_arguments_needs_no_ladder(f, monkeypatch):
    turn = importlib.import_module("clarke.audit.turn")
    climbed = []
    monkeypatch.setattr(turn, "judge", lambda *a, **_: climbed.append(a))
    x = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
    with clarke.audit(seconds=20) as watching:
        f(x).backward()
    assert watching.steps[0].verdict in (Verdict.SMOOTH, Verdict.SURROGATE)
    assert not climbed


def of_ones_own(x):
    return x.sum() if (x >= 0).all() else -x.sum()


def of_a_constraint(x):
    return x.sum() if constraints.nonnegative.check(x).all() else -x.sum()


def positive_definite(x):
    matrix = torch.stack([torch.stack([x[0], x[1]]), torch.stack([x[1], x[0]])])
    kept = constraints.positive_semidefinite.check(matrix)
    return torch.where(kept, x.sum(), -x.sum())


@pytest.mark.parametrize("f", [of_ones_own, of_a_constraint, positive_definite])
def test_what_the_program_itself_decides_by_a_constraint_counts(f):
    x = torch.tensor([1.0, 1.0] if f is positive_definite else [0.0, 1.0], dtype=torch.float64)
    assert clarke.check(f, (x.requires_grad_(),)).verdict is not Verdict.SMOOTH
