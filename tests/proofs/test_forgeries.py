"""No changed certificate verifies: every field of every class, over a zoo of verdicts.

Each forgery is tried twice. As it is, the seal gives it away. With a new seal, written by a forger
who knows how, it has to fail because what it claims is not so; what may pass is listed, with the
reason why it is still a proof of the same.
"""

import re

import numpy as np
import pytest
import torch
from reference.forgery import forgeries
from torch import nn
from torch.nn import functional as F

import clarke
from clarke.capture import digest
from clarke.decide import Certificate, Refutation
from clarke.decide.membership import Membership
from clarke.fast import LayerCertificate
from clarke.theorems import RankCertificate, full_column_rank
from clarke.verdict import Verdict


def leaf(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def lemma2(x):
    return (torch.relu(x) - torch.relu(-x)).sum()


def exchanged(w):
    pooled = F.max_pool1d(torch.stack([w[0], 2 * w[0]])[None], 2)
    return (pooled + 3 * F.max_pool1d(torch.stack([2 * w[0], w[0]])[None], 2)).sum()


def masked(x):
    return ((x > 0) * x + torch.where(x > 0, 2 * x, x)).sum()


def network(x):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        net[0].weight[:2] = 0
        net[0].bias[:2] = 0
    return net(x.to(torch.float32)).sum()


def many(x):
    """More kinks than rows are searched for, all settled by the bias x."""
    return torch.relu(torch.linspace(-1, 1, 81, dtype=x.dtype)[:, None] * 0 + x).sum()


ZOO = {
    "smooth": (lambda x: (x * x + 3 * x).sum(), leaf(1.0, -2.0), Verdict.SMOOTH),
    "smooth beside kinks": (lambda x: torch.relu(x).sum(), leaf(1.0, -2.0), Verdict.SMOOTH),
    "null kinks": (lambda x: torch.stack([x, x]).amax(0).sum(), leaf(1.0), Verdict.SMOOTH),
    "one witness": (lambda x: (2 * torch.relu(x)).sum(), leaf(0.0, 0.0), Verdict.BOULIGAND),
    "nested": (lambda x: torch.relu(x + torch.relu(2 * x)).sum(), leaf(0.0), Verdict.BOULIGAND),
    "curved": (lambda x: torch.relu(x[0] + x[1] ** 2), leaf(0.0, 0.0), Verdict.BOULIGAND),
    "float32": (network, leaf(1.0, 2.0, dtype=torch.float32), Verdict.BOULIGAND),
    "masks": (masked, leaf(0.0, 1.0), Verdict.BOULIGAND),
    "bias shift": (many, leaf(0.0), Verdict.BOULIGAND),
    "sorted": (
        lambda x: (x.sort().values * torch.arange(3.0, dtype=x.dtype)).sum(),
        leaf(1.0, 1.0, 2.0),
        Verdict.BOULIGAND,
    ),
    "mixture": (
        lambda x: (x.abs() * torch.tensor([1.0, 3.0], dtype=x.dtype)).sum(),
        leaf(0.0, 0.0),
        Verdict.CLARKE,
    ),
    "ties": (lambda x: x.amax(), leaf(1.0, 1.0, 1.0), Verdict.CLARKE),
    "neighbours": (exchanged, leaf(0.0), Verdict.CLARKE),
    "rays": (lambda x: (2 * x).norm() + x[0], leaf(0.0, 0.0), Verdict.CLARKE),
    "eigenvalues": (
        lambda x: torch.linalg.eigvalsh(torch.diag(x) + torch.diag(x).T)[-1],
        leaf(1.0, 1.0),
        Verdict.BOULIGAND,
    ),
    "wrong": (lemma2, leaf(0.0, 0.0), Verdict.NOT_CLARKE),
    "wrong with exclusions": (
        lambda x: 2 * lemma2(x) + lemma2(2 * x[:1]) + x.abs().sum(),
        leaf(0.0, 0.0),
        Verdict.NOT_CLARKE,
    ),
    "wrong maxima": (
        lambda x: (
            torch.stack([x[0] + x[1], x[1]]).max(0).values
            - torch.stack([-x[0] + x[1], x[1]]).max(0).values
        ),
        leaf(0.0, 0.0),
        Verdict.NOT_CLARKE,
    ),
}

# What a forger may change, with a new seal, and still have a proof of what he claims.
STILL_PROOFS = (
    (r"run_gradient: dropped", "the recorded operations are run instead of the function"),
    (r"witnesses\.(direction|gradient|rows): .*ulp", "less than roundings"),
    (r"(gradient|weights|tolerance|gap|distance|noise|replay_noise): .*ulp", "the same"),
    (r"direction: one entry by an ulp", "the same"),
    (r"limits\.(base|components.*): .*ulp", "the same"),
    (r"limits\.components\.cells\.direction: dropped", "less is claimed than is known"),
)
# Of what has several proofs, another one.
OTHER_PROOFS = {
    "smooth": r"witnesses\.direction",  # gradients are the same along every ray
    "smooth beside kinks": r"witnesses\.direction",
    "null kinks": r"witnesses\.direction",
}


def judged(name):
    function, x, verdict = ZOO[name]
    report = clarke.check(function, (x,))
    assert report.verdict is verdict, str(report)
    return report.certificate


def foreign(name):
    """A certificate of the same class for another function of the same shapes."""
    function, x, verdict = ZOO[name]
    report = clarke.check(lambda y: 2 * function(y) + 5 * y.sum(), (x,))
    assert report.certificate is not None, str(report)
    return report.certificate


def accepted(name, proof, other):
    """Forgeries of a certificate, in number, and those that verify although they should not."""
    count, wrong = 0, []
    known = [pattern for pattern, _ in STILL_PROOFS]
    if name in OTHER_PROOFS:
        known.append(OTHER_PROOFS[name])
    allowed = re.compile("|".join(f"(?:{p})" for p in known))
    for forgery in forgeries(proof, other):
        what = f"{forgery.path}: {forgery.what}"
        count += 1
        if forgery.proof.verify():
            wrong.append(f"{what} (as it is)")
        if forgery.path == "seal" or forgery.slight or allowed.match(what):
            continue
        count += 1
        if forgery.resealed().verify():
            wrong.append(f"{what} (with a new seal)")
    return count, wrong


@pytest.mark.parametrize("name", ZOO)
def test_no_forged_certificate_verifies(name):
    proof = judged(name)
    assert proof.defects() == ()
    count, wrong = accepted(name, proof, foreign(name))
    assert wrong == []
    assert count > 50
