"""No changed certificate verifies: every field of every class, over a zoo of verdicts.

Each forgery is tried twice. As it is, the seal gives it away. With a new seal, written by a forger
who knows how, it has to fail because what it claims is not so; what may pass is listed, with the
reason why it is still a proof of the same.
"""

import ast
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import clarke
from clarke.decide.answers import Independent, Slope, Smallest, Vertices
from clarke.decide.certificate import Argument, Certificate
from clarke.decide.membership import Member, Membership
from clarke.fast import Layered
from clarke.jacobian import Jacobian
from clarke.theorems import FullRank, full_column_rank
from clarke.verdict import Verdict
from reference.forgery import forgeries
from reference.zoo import ZOO, leaf

# With new seals every kind of change is tried once, or everywhere.
THOROUGH = "CLARKE_FUZZ" in os.environ

# What a forger may change, with a new seal, and still have a proof of what he claims.
STILL_PROOFS = (
    r"run_gradient: dropped",  # the recorded operations are run instead of the function
    r"limits\.components\.cells\.direction: dropped",  # less is claimed than is known
    r"limits\.components\.cells\.direction: one entry by",  # another direction in the same cell
    # More by less than verification grants, or less for a sum that needs none of it.
    r"(replay_)?bounds: (one entry by a thousandth|of zeros|turned round)",
    # Within what verification grants, or a separation of more than has to be.
    r"allowed: (one entry by a thousandth|turned round)",
)
# The same of single programs.
OTHER_PROOFS = {
    # Gradients are the same along every ray.
    "smooth": r"witnesses(\.direction|: turned round)",
    "smooth beside kinks": r"witnesses(\.direction|: turned round)",
    "null kinks": r"witnesses(\.direction|: turned round)",
    # No row depends on the second entry; of the eigenvectors none on the size of the entries.
    "curved": r"witnesses\.direction: one entry by",
    "masks": r"witnesses\.direction: one entry by",
    "float32": r"witnesses\.direction: one entry by|gradient: one entry by a thousandth",
    "sorted": r"witnesses\.direction: one entry by",
    "eigenvalues": r"witnesses\.direction: one entry by",
    # The weights are equal.
    "mixture": r"(witnesses|weights): turned round",
    "ties": r"(witnesses|weights): turned round",
    "rays": r"witnesses: turned round",
    # Limits are alike on all rays, and rays a sample; errors are recomputed.
    "guard": r"witnesses(\.direction|: turned round)|error: ",
    # Of another vector, off the limit as well, it is as true that it is wrong.
    "wrong guard": r"witnesses(\.direction|: turned round)|error: |gradient: one entry by",
    # What is dropped is AD's own choice, which counts where a selection is silent.
    "neighbours": r"witnesses\.choices: one entry dropped",
    # What separates looks at one entry, of which more may be off.
    "wrong with exclusions": r"allowed: one entry by much",
}


def judged(name):
    function, x, verdict = ZOO[name]
    report = clarke.check(function, (x,), seconds=None)
    assert report.verdict is verdict, str(report)
    return report.certificate


def foreign(name):
    """A certificate of the same class for another function of the same shapes."""
    function, x, _ = ZOO[name]
    report = clarke.check(lambda y: 2 * function(y) + 5 * y.sum(), (x,), seconds=None)
    assert report.certificate is not None, str(report)
    return report.certificate


def accepted(proof, other, allowed="", bound=lambda forged: forged):
    """Forgeries of a certificate, in number, and those that verify although they should not.

    Args:
        proof: The certificate.
        other: One for another program of the same shapes.
        allowed: Which changes leave another proof of what is claimed.
        bound: Gives `verify` to a certificate whose own wants an argument.
    """
    count, wrong, seen = 0, [], set()
    harmless = re.compile("|".join(filter(None, [*STILL_PROOFS, allowed])))
    for forgery in forgeries(proof, other):
        what = f"{forgery.path}: {forgery.what}"
        count += 1
        if bound(forgery.proof).verify():
            wrong.append(f"{what} (as it is)")
        known = what in seen and not THOROUGH
        seen.add(what)
        if known or forgery.path == "seal" or forgery.slight or harmless.match(what):
            continue
        count += 1
        if bound(forgery).resealed().verify():
            wrong.append(f"{what} (with a new seal)")
    return count, wrong


LONG = (
    "wrong with exclusions",
    "wrong maxima",
    "wrong guard",
    "neighbours",
    "eigenvalues",
    "guard",
    "masks",
    "norms",
    "rays",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in ZOO]
)
def test_no_forged_certificate_verifies(name):
    proof = judged(name)
    assert proof.defects() == ()
    count, wrong = accepted(proof, foreign(name), OTHER_PROOFS.get(name, ""))
    assert wrong == []
    assert count > 50


@pytest.mark.parametrize("vector", [(0.5, -0.25), (2.0, 0.0)], ids=["inside", "outside"])
def test_no_forged_membership_verifies(vector):
    asked = torch.tensor(vector, dtype=torch.float64)
    proof, other = (
        clarke.subdifferential(lambda x, k=k: (k * x.abs()).sum(), (leaf(0.0, 0.0),))
        .contains(asked)
        .certificate
        for k in (1.0, 3.0)
    )
    assert proof.argument.inside is (vector[0] < 1)
    assert proof.defects() == ()
    # What is apart by more than has to be is apart, and what two ways of finding the set agree on
    # either of them proves.
    stronger = r"exact: the opposite|directions"
    if not proof.argument.inside:
        stronger = r"allowed: one entry by much|(exact|regular): the opposite"
    count, wrong = accepted(proof, other, stronger)
    assert wrong == []
    assert count > 50


def layered(labels):
    """A quick verdict on a network with touched ReLUs and tied windows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        ).double()
    with torch.no_grad():
        net[0].bias.zero_()
    images = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    images[:, :, 1, 1] = 1.0
    reports = []
    with clarke.audit() as watch:
        watch.subscribe(lambda _, report: reports.append(report))
        nn.functional.cross_entropy(net(images), torch.tensor(labels)).backward()
    return reports[0]


def test_no_forged_quick_verdict_verifies():
    report, other = layered([0, 1]), layered([2, 0])
    proof = report.certificate
    assert isinstance(proof.argument, Layered)
    assert report.verdict is Verdict.BOULIGAND
    assert proof.defects() == ()
    # Shifts of biases may have any size, and shift what is at no kink; some weights do nothing.
    harmless = r"(directions|program\.trace\.externals): one entry by"
    count, wrong = accepted(proof, other.certificate, harmless)
    # Gradients are not sealed, since that would take a pass over them at every step.
    assert [w for w in wrong if not re.match(r"gradient: .* ulp \(as it is\)", w)] == []
    assert count > 50


def test_no_forged_rank_verifies():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 5, 3))

    class Bound:
        def __init__(self, proof):
            self.proof = proof

        def verify(self):
            return self.proof.verify(x)

        def resealed(self):
            return Bound(self.proof.proof.sealed(x))

    proof = full_column_rank(x)
    assert proof.verify(x)
    assert not proof.verify(np.nextafter(x, np.inf))
    # An approximate inverse need not be exact, and small matrices need none.
    harmless = r"inverse: (one entry by a thousandth|dropped)"
    count, wrong = accepted(proof, full_column_rank(y), harmless, Bound)
    assert wrong == []
    assert count > 20


def test_there_is_one_class_of_certificates():
    """What proves a verdict on a program is an argument of one class; what has more is listed."""
    texts = [p.read_text(encoding="utf-8") for p in Path(clarke.__file__).parent.rglob("*.py")]
    found = {
        node.name
        for text in texts
        if "def verify(" in text
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(f, ast.FunctionDef) and f.name == "verify" for f in node.body)
    }
    others = {
        FullRank,  # of a matrix, and of no program
        Membership,  # verifies its certificate
        Jacobian,  # the same, and its matrix; tests/jacobian
        clarke.Goldstein,  # a ball, and no point; tests/goldstein
    }
    assert found == {c.__name__ for c in (Certificate, *others)}


@pytest.mark.slow
def test_every_argument_is_forged():
    """A new kind of argument needs a test here."""
    sets = {Member, Smallest, Slope, Vertices, Independent}  # test_set_files.py
    known = {type(judged(name).argument) for name in ZOO} | sets | {Layered}
    assert known == {*Argument.__subclasses__()}
