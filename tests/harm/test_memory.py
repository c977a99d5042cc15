"""Memory that is gone when a gradient is judged is not read; the program runs as without clarke."""

import pytest
import torch
from torch import nn

import clarke
from clarke import Verdict
from clarke.capture import is_there


def gone(tensor):
    tensor.untyped_storage().resize_(0)


def shrunk(tensor):
    tensor.untyped_storage().resize_(tensor.element_size())


@pytest.mark.parametrize("free", [gone, shrunk])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("what", ["input", "result", "parameter"])
def test_memory_freed_between_forward_and_the_verdict(free, dtype, what):
    """As sharded parameters and hand-made savers of activations do it, after their last use."""
    net = nn.Linear(3, 4, dtype=dtype)
    with torch.no_grad():
        net.weight.zero_()
        net.bias.zero_()
    inputs = torch.ones(5, 3, dtype=dtype)
    with clarke.audit() as watching:
        hidden = net(inputs)
        loss = (torch.relu(hidden) - torch.relu(-hidden)).sum()
        freed = {"input": inputs, "result": hidden.detach(), "parameter": net.weight.data}[what]
        net.bias.register_hook(lambda _grad: free(freed))  # after all else has been computed
        loss.backward()
    assert net.bias.grad is not None
    [step] = watching.steps
    if what == "result":  # the ReLU keeps its signs and a copy of its own; the program is known
        assert step.verdict in (Verdict.UNDECIDED, Verdict.NOT_CLARKE)
    else:
        assert step.verdict is Verdict.UNDECIDED
        assert "has been freed or made smaller" in step.reason


def test_memory_freed_before_backward_that_nobody_needs():
    x = torch.zeros(1000, requires_grad=True)
    with clarke.audit() as watching:
        mask = torch.ones(1000)
        y = torch.relu(x - mask + 1)  # nothing of it is saved
        gone(mask)
        y.sum().backward()
    assert x.grad.tolist() == [0.0] * 1000
    assert watching.steps[0].verdict is Verdict.UNDECIDED
    assert "freed or made smaller" in watching.steps[0].reason


def test_a_parameter_whose_memory_is_replaced_by_a_smaller_one():
    w = nn.Parameter(torch.zeros(100))
    with clarke.audit() as watching:
        loss = torch.relu(w + 0).sum()
        loss.backward()
        w.data = torch.empty(0)
        (torch.zeros(1, requires_grad=True) * 1).sum().backward()
    assert [s.verdict.correct for s in watching.steps] == [True, True]


def test_what_counts_as_there():
    t = torch.ones(4, 5)
    views = (t, t[1:, ::2], t.T, t[3], torch.ones(0, 3), torch.ones(()))
    assert all(is_there(v) for v in views)
    assert is_there(torch.ones(2).to_sparse())
    view = t[3]
    shrunk(t)
    assert not is_there(t)
    assert not is_there(view)
    assert is_there(torch.ones(3)[:0])
    assert not is_there(torch.ones(3, device="meta"))


def test_check_names_the_place():
    x = torch.zeros(3, requires_grad=True)

    def program(x):
        scale = torch.ones(3)
        y = x.abs() + scale
        gone(scale)
        return y.sum()

    report = clarke.check(program, (x,))
    assert report.verdict is Verdict.UNDECIDED
    assert "test_memory.py" in report.reason
    assert "has been freed or made smaller" in report.reason
