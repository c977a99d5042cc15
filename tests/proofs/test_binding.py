"""What a certificate is bound to, and what a verification does when it cannot have an answer."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import clarke
from clarke.decide import exact
from clarke.decide.model import ray_witness
from clarke.errors import OutOfTimeError
from clarke.steering import Analysis, Program
from reference.forgery import altered
from reference.leaves import leaf


def proof_of(function, *values):
    report = clarke.check(function, (leaf(*values),), seconds=None)
    assert report.certificate.defects() == ()
    return report.certificate


def lemma2(x):
    return (torch.relu(x) - torch.relu(-x)).sum()


def with_ops(proof, change):
    """A certificate of a program whose records were changed, one by one."""
    program = proof.program
    trace = program.analysis.recorded
    trace = replace(trace, ops=tuple(change(op) for op in trace.ops))
    own = program.analysis
    analysis = Analysis(trace, own.sites, own.unknown, own.count, trace)
    return replace(proof, program=Program(analysis, program.variables))


def test_parts_of_a_right_program_do_not_prove_a_wrong_one():
    right = proof_of(lambda x: (torch.relu(x) - torch.relu(2 * x)).sum(), 0.0)
    wrong = proof_of(lemma2, 0.0)
    forged = replace(right, program=wrong.program)
    assert "changed" in forged.defects()[0]
    assert forged.sealed().defects() == ("witness 0: the direction does not satisfy all rows",)


def test_without_rows_nothing_is_proved():
    wrong = proof_of(lemma2, 0.0)
    right = proof_of(lambda x: (torch.relu(x) - torch.relu(2 * x)).sum(), 0.0)
    gradient = tuple(g.to(torch.float64) for g in right.gradient)
    bare = ray_witness((torch.ones(1, dtype=torch.float64),), gradient)
    for run in (True, False):
        forged = altered(right, program=wrong.program, witnesses=(bare,)).sealed()
        assert forged.defects(run=run) == (
            "witness 0: the rows are not those of the relevant kinks",
        )


def test_recorded_values_are_computed_again():
    """With values off the kink in the record nothing seems touched."""
    proof = proof_of(lambda x: (2 * torch.relu(x)).sum(), 0.0)
    (witness,) = proof.witnesses
    bare = ray_witness(witness.direction, witness.gradient)

    def off(op):
        return replace(op, kept={i: v - 1 for i, v in op.kept.items()}, signs=None)

    forged = altered(with_ops(proof, off), witnesses=(bare,)).sealed()
    assert forged.defects() == ("witness 0: the rows are not those of the relevant kinks",)


def test_flags_of_operations_are_found_out():
    """Kinks are looked for at differentiated operations only."""
    proof = proof_of(lambda x: (2 * torch.relu(x)).sum(), 0.0)
    (witness,) = proof.witnesses
    bare = ray_witness(witness.direction, witness.gradient)
    forged = altered(
        with_ops(proof, lambda op: replace(op, differentiated=False)), witnesses=(bare,)
    ).sealed()
    (defect,) = forged.defects()
    assert defect == "relu reads differentiated values, but is recorded as constant"


def test_a_certificate_ends_with_the_values_that_it_speaks_of():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.ones(1, 2, dtype=torch.float64)
    report = clarke.check(lambda: net(x).sum(), seconds=None)
    assert report.verdict is clarke.Verdict.BOULIGAND
    assert report.certificate.verify()
    net(x).sum().backward()
    optimizer.step()
    (defect,) = report.certificate.defects()
    assert "a tensor that its program read, has changed" in defect


def test_many_rows_are_taken_in_one_pass():
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    x = torch.randn(16, 4)
    proof = clarke.check(lambda: net(x).sum(), seconds=None).certificate
    (witness,) = proof.witnesses
    assert len(witness.rows) == 1024
    assert proof.verify(run=False)
    back = replace(witness, direction=tuple(-d for d in witness.direction))
    forged = altered(proof, witnesses=(back,)).sealed()
    assert forged.defects(run=False) == ("witness 0: the direction does not satisfy all rows",)


def test_a_time_limit_raises_and_accepts_nothing():
    for proof in (proof_of(lambda x: x.abs().sum(), 0.0, 0.0), proof_of(lemma2, 0.0)):
        with pytest.raises(OutOfTimeError, match="seconds="):
            proof.verify(seconds=1e-9)
        assert proof.verify(seconds=1000)


def test_what_is_out_of_reach_is_not_accepted(monkeypatch):
    proof = proof_of(lemma2, 0.0, 0.0)
    monkeypatch.setattr(exact, "VERIFIED_NODES", 1)
    (defect,) = proof.defects()
    assert defect.startswith("the program cannot be judged again: ")
