"""What some operations need of a program, run alone: the values of the whole replay."""

import pytest
import torch

from clarke.capture import Ref
from clarke.prepare import prepared
from clarke.steering import Partial, Pieces, Program, analyse

F64 = torch.float64


def in_place(x, y):
    total = x * 2
    total[0] = y[1]
    total.mul_(y)
    return torch.relu(total).sum()


PROGRAMS = {
    "cone": lambda x, y: (torch.relu(x * y) + torch.sin(y).exp() * torch.maximum(x, 3 * y)).sum(),
    "in place": in_place,
    "lists": lambda x, y: torch.cat([x.abs(), y]).cumsum(0).max() + torch.stack((x, y)).amax(),
    "scalars": lambda x, y: x.clamp(0.5, 2).pow(3).sum() + (y.softmax(0) - 0.1).abs().sum(),
}


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("name", PROGRAMS)
def test_arguments_are_those_of_the_whole_replay(name, dtype):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, generator=generator, dtype=dtype).requires_grad_() for _ in range(2)]
    with prepared(PROGRAMS[name], tuple(inputs), None) as run:
        analysis = analyse(run.trace, run.registry, run.deadline)
        slots = {id(e.tensor): e.slot for e in run.trace.leaves()}
        program = Program(analysis, [slots[id(x)] for x in inputs])
        ops = [site.touch.op for site in analysis.ordered()]
        partial = Partial(program, ops[:1] if name == "cone" else ops)
        for shift in (0.0, 0.25, -1.0):  # the second time as plain calls
            point = [x + shift for x in program.point]
            leaves, calls = partial.run(point, grad=True)
            whole = program.run(point, pieces=Pieces.NATURAL, probe=True)
            for op, call in zip(partial.ops, calls, strict=True):
                for given, found in zip(op.args, call.args, strict=True):
                    if isinstance(given, Ref) and name != "in place":
                        assert torch.equal(found, whole.tensors[given.slot])
            values = torch.cat([c.args[0].reshape(-1) for c in calls if c.args[0].requires_grad])
            slopes = torch.autograd.grad(values.sum(), leaves, allow_unused=True)
            assert any(s is not None and bool(s.any()) for s in slopes)
            _, again = partial.run(point, grad=False)
            assert not any(c.args[0].requires_grad for c in again)


def test_it_runs_no_more_than_is_needed():
    x, y = (torch.ones(3, dtype=F64, requires_grad=True) for _ in range(2))
    with prepared(PROGRAMS["cone"], (x, y), None) as run:
        analysis = analyse(run.trace, run.registry, run.deadline)
        slots = {id(e.tensor): e.slot for e in run.trace.leaves()}
        program = Program(analysis, [slots[id(x)], slots[id(y)]])
        first, last = (s.touch.op for s in analysis.ordered())
        assert [o.short_name for o in Partial(program, [first]).needed] == ["mul"]
        assert [o.short_name for o in Partial(program, [last]).needed] == ["mul"]
