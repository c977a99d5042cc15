"""What attackers found: forged records, calls without end, harm to the program that is watched."""

import sys
from dataclasses import replace

import pytest
import torch

import clarke
from clarke.capture import Origin
from clarke.decide import Certificate
from clarke.decide.model import ray_witness
from clarke.decide.witnessed import Witnessed
from clarke.steering import Analysis, Program
from reference.leaves import leaf


def lemma2(x):
    return (torch.relu(x) - torch.relu(-x)).sum()


def smooth_claim(program, gradient):
    """The certificate of one who says that nothing is touched and the gradient is this."""
    rays = [tuple(s * torch.ones_like(p) for p in program.point) for s in (1.0, -1.0)]
    room = tuple(torch.zeros_like(p) for p in program.point)
    proof = Witnessed(
        witnesses=tuple(ray_witness(d, gradient) for d in rays),
        weights=(0.5, 0.5),
        bounds=room,
        # He hands over the function that is run along the rays, too.
        run_gradient=lambda _: gradient,
        replay_bounds=room,
    )
    return Certificate(program, gradient, proof).sealed()


def reread(proof, trace, variables):
    """A program with another record."""
    own = proof.program.analysis
    return Program(Analysis(trace, own.sites, own.unknown, own.count, trace), variables)


@pytest.mark.parametrize("origin", [o for o in Origin if o is not Origin.LEAF])
def test_a_variable_recorded_as_a_constant_proves_nothing(origin):
    """Kinks that no variable reaches are looked at no further."""
    proof = clarke.check(lemma2, (leaf(0.0),), seconds=None).certificate
    trace, (slot,) = proof.program.analysis.recorded, proof.program.variables
    still = replace(trace.externals[slot], origin=origin)
    trace = replace(trace, externals={**trace.externals, slot: still})
    program = reread(proof, trace, proof.program.variables)
    (defect,) = smooth_claim(program, (torch.zeros(1, dtype=torch.float64),)).defects()
    assert defect == "a variable is named twice, or recorded as what does not vary"


def test_a_variable_named_twice_proves_nothing():
    """The gradient with respect to one of the two is zero."""
    proof = clarke.check(lambda x: (2 * x).sum(), (leaf(0.0),), seconds=None).certificate
    program = reread(proof, proof.program.analysis.recorded, proof.program.variables * 2)
    halves = torch.zeros(1, dtype=torch.float64), torch.full((1,), 2.0, dtype=torch.float64)
    (defect,) = smooth_claim(program, halves).defects()
    assert defect == "a variable is named twice, or recorded as what does not vary"


def test_a_judge_warns_of_nothing(recwarn):
    """Numbers are read from values without their gradients: torch warns of the first that is."""
    clarke.check(lambda x: (torch.relu(x) - torch.relu(2 * x)).sum(), (leaf(0.0),), seconds=None)
    assert not [w for w in recwarn if "requires_grad" in str(w.message)]


class Interrupting:
    """Raises KeyboardInterrupt where the n-th line of the code that opens an audit begins."""

    def __init__(self, at):
        self.left = at

    def __call__(self, frame, event, _arg):
        name = frame.f_code.co_filename
        if not name.endswith(("audit/session.py", "audit/engine.py")):
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def test_an_interrupt_while_an_audit_opens_leaves_none_running():
    engine = torch.autograd._engine_run_backward
    for at in range(1000):
        audit = clarke.audit()
        interrupting = Interrupting(at)
        earlier = sys.gettrace()
        sys.settrace(interrupting)
        try:
            audit.__enter__()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(earlier)
        if interrupting.left >= 0:
            audit.__exit__(None, None, None)
            break
        assert torch.autograd._engine_run_backward is engine, at
    assert 10 < at < 1000
    assert torch.autograd._engine_run_backward is engine
