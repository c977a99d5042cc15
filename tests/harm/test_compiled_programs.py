"""Programs under torch.compile run under an audit exactly as without."""

import re
import warnings
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import clarke
from clarke import Verdict
from clarke.torch_compiled import CompileNotice

BACKENDS = ("eager", "aot_eager")


@pytest.fixture(autouse=True)
def _apart():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    counters.clear()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


def whole(net, backend):
    return torch.compile(lambda x: net(x).square().mean(), fullgraph=True, backend=backend)


def module(net, backend):
    compiled = torch.compile(net, backend=backend)
    return lambda x: compiled(x).square().mean()


def method(net, backend):
    net.compile(backend=backend, fullgraph=True)
    return lambda x: net(x).square().mean()


def loss(net, backend):
    function = torch.compile(lambda y: y.abs().mean(), fullgraph=True, backend=backend)
    return lambda x: function(net(x))


def region(net, backend):
    net.first = torch.compile(net.first, backend=backend)
    return lambda x: net(x).square().mean()


def broken(net, backend):
    def program(x):
        y = net(x)
        torch._dynamo.graph_break()
        return y.square().mean()

    return torch.compile(program, backend=backend)


def hooked(net, backend):
    def program(x):
        y = net.first(x)
        y.register_hook(lambda g: 2 * g)
        return y.relu().sum()

    return torch.compile(program, backend=backend)


def checkpointed(net, backend):
    def program(x):
        return checkpoint(net.first, x, use_reentrant=False).square().mean()

    return torch.compile(program, backend=backend, fullgraph=True)


def functional(net, backend):
    def program(x):
        slopes = torch.vmap(torch.func.grad(lambda row: net.first(row).relu().sum()))(x)
        return slopes.square().sum()

    return torch.compile(program, backend=backend, fullgraph=True)


def branch(net, _backend):
    return lambda x: torch.cond(x.sum() > 0, torch.relu, torch.abs, (net.first(x),)).sum()


PROGRAMS = (
    whole, module, method, loss, region, broken, hooked, checkpointed, functional, branch,
)  # fmt: skip


def train(make, backend, watching, *, before=False, whole_step=False):
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    net = Net()
    x = torch.randn(6, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        program(x).backward()
        optimizer.step()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if before:
            program = make(net, backend)
            program(x).backward()
        with watching:
            if not before:
                program = make(net, backend)
            one = torch.compile(step, backend=backend) if whole_step else step
            for _ in range(3):
                one()
    seen = (
        counters["stats"]["unique_graphs"],
        counters["stats"]["calls_captured"],
        sum(counters["graph_break"].values()),
        sum(counters["recompiles"].values()),
        sorted({str(w.message) for w in told}),
    )
    return [p.detach().clone() for p in net.parameters()], seen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", PROGRAMS)
def test_as_without(make, backend):
    plain, counted = train(make, backend, nullcontext())
    audit = clarke.audit()
    seen, counted_under_audit = train(make, backend, audit)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert counted == counted_under_audit
    assert len(audit.steps) == 3 or make is functional  # whose inner gradients are calls, too
    found = {s.verdict for s in audit.steps}
    if make in (hooked, functional):  # on "eager" torch's own operators run, and are seen
        assert found == {Verdict.UNDECIDED} or backend == "eager"
    else:
        assert found == {Verdict.SMOOTH}


@pytest.mark.parametrize("make", [whole, module, method])
def test_compiled_before_the_audit(make):
    plain, counted = train(make, "aot_eager", nullcontext(), before=True)
    seen, counted_under_audit = train(make, "aot_eager", clarke.audit(), before=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert counted == counted_under_audit


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_whole_step_compiled():
    def plainly(net, _backend):
        return lambda x: net(x).square().mean()

    plain, counted = train(plainly, "aot_eager", nullcontext(), whole_step=True)
    audit = clarke.audit()
    seen, counted_under_audit = train(plainly, "aot_eager", audit, whole_step=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert counted[:3] == counted_under_audit[:3]
    assert {s.verdict for s in audit.steps} == {Verdict.SMOOTH}


def test_compiled_autograd():
    results = []
    for watching in (nullcontext(), clarke.audit()):
        torch._dynamo.reset()
        torch.manual_seed(0)
        net, x = Net(), torch.randn(6, 4)
        with torch._dynamo.config.patch(compiled_autograd=True), watching:
            train_step = torch.compile(
                lambda net=net, x=x: net(x).square().mean().backward(), backend="aot_eager"
            )
            train_step()
        results.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_modules_are_named_where_hooks_must_not_be():
    """The eager part of a program that compiles something is told about as ever."""
    names = []
    for compiles in (False, True):
        net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 1)))
        with clarke.audit() as watching:
            if compiles:
                torch.compile(torch.relu, backend="eager")
            net(torch.zeros(2, 3)).sum().backward()
        names.append([p.module for p in watching.summary().places])
    assert names[0] == names[1] == ["1.0"]


def test_jit_trace_sees_the_program_alone():
    net, x = Net().eval(), torch.randn(6, 4)

    def graph():
        return re.sub(r"___torch_mangle_\d+\.", "", str(torch.jit.trace(net, (x,)).graph))

    plain = graph()
    with clarke.audit():
        assert graph() == plain


def test_export_sees_the_program_alone():
    net, x = Net().eval(), torch.randn(6, 4)
    plain = str(torch.export.export(net, (x,)).graph)
    with clarke.audit():
        assert str(torch.export.export(net, (x,)).graph) == plain


def test_torch_compile_is_put_back():
    own = torch.compile
    with clarke.audit():
        assert torch.compile is not own
        assert torch.compile.__doc__ == own.__doc__
    assert torch.compile is own


@pytest.mark.parametrize("last_first", [True, False])
def test_torch_compile_is_put_back_in_any_order(last_first):
    """As those of several threads end."""
    own, told = torch.compile, []
    notices = [CompileNotice(partial(told.append, i)) for i in range(3)]
    for notice in notices:
        notice.__enter__()
    kept = torch.compile
    told.clear()
    for notice in reversed(notices) if last_first else notices:
        notice.stop()
    assert torch.compile is own
    assert kept(torch.relu, backend="eager")(torch.ones(1)).item() == 1
    assert told == []
