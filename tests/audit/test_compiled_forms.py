"""Compiled programs as people write them, each with a right and a wrong kink: judged and untouched.

A form makes a program of a kink and a way to compile. It runs without an audit and under one:
equal bits, no warning of ours, nothing compiled again, and the verdict of the function.
"""

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import clarke
from clarke import AuditWarning

SLOW = pytest.mark.slow


pytestmark = pytest.mark.usefixtures("nothing_compiled")


def right(x):
    return torch.relu(x)


def wrong(x):
    return torch.relu(x) - torch.relu(-x)


class Layer(nn.Module):
    def __init__(self, kink):
        super().__init__()
        self.w, self.kink = nn.Parameter(torch.zeros(4)), kink
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        return self.kink(self.w * x)


X = torch.tensor([1.0, 2.0, 0.5, 4.0])


def function(kink, compiled):
    layer = Layer(kink)
    program = compiled(lambda w, x: kink(w * x).sum())
    return lambda: program(layer.w, X), [layer.w]


def whole_graph(kink, compiled):
    return function(kink, partial(compiled, fullgraph=True))


def module(kink, compiled):
    layer = Layer(kink)
    program = compiled(layer)
    return lambda: program(X).sum(), [layer.w]


def in_place(kink, _):
    layer = Layer(kink)
    layer.compile(backend=_.keywords["backend"])
    return lambda: layer(X).sum(), [layer.w]


def dynamic(kink, compiled):
    layer = nn.Linear(4, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    program = compiled(lambda x: kink(layer(x)).mean(), dynamic=True)
    sizes = iter(range(3, 50))
    return lambda: program(torch.ones(next(sizes), 4)), list(layer.parameters())


def broken(kink, compiled):
    layer = Layer(kink)

    def f(x):
        y = layer.w * x
        torch._dynamo.graph_break()
        return kink(y).sum()

    program = compiled(f)
    return lambda: program(X), [layer.w]


def region(kink, compiled):
    layers = [Layer(torch.tanh), Layer(kink)]
    programs = [compiled(layer) for layer in layers]
    last = nn.Parameter(torch.ones(4))

    def run():
        return (programs[1](programs[0](X) + X) * last).sum()

    return run, [layers[0].w, layers[1].w, last]


def loss_only(kink, compiled):
    layer = nn.Linear(4, 2, bias=False)
    nn.init.zeros_(layer.weight)
    loss = compiled(lambda y: kink(y).mean())
    return lambda: loss(layer(X)), [layer.weight]


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(_ctx, g):
        return g * 2


def custom_function(kink, compiled):
    layer = Layer(kink)
    program = compiled(lambda w: kink(Twice.apply(w)).sum())
    return lambda: program(layer.w), [layer.w]


def checkpointed(kink, compiled):
    layer = Layer(kink)
    program = compiled(lambda x: checkpoint(layer, x, use_reentrant=False).sum())
    return lambda: program(X), [layer.w]


def autocast_inside(kink, compiled):
    layer = nn.Linear(4, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    def f(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        return kink(y.float()).sum()

    program = compiled(f)
    return lambda: program(X), list(layer.parameters())


def buffers_written(kink, compiled):
    layer = Layer(kink)

    def f(x):
        layer.seen += 1
        return kink(layer.w * x).sum() * layer.seen

    program = compiled(f)
    return lambda: program(X), [layer.w]


def part_without_gradients(kink, compiled):
    layer = Layer(kink)

    def f(x):
        with torch.no_grad():
            scale = (x * x).sum().sqrt()
        return kink(layer.w * x).sum() / scale

    program = compiled(f)
    return lambda: program(X), [layer.w]


def branch_on_data(kink, compiled):
    layer = Layer(kink)

    def f(x):
        y = layer.w * x
        return kink(y).sum() if x.sum() > 0 else y.sum()

    program = compiled(f)
    return lambda: program(X), [layer.w]


def dictionaries(kink, compiled):
    layer = Layer(kink)
    program = compiled(lambda batch: {"loss": kink(layer.w * batch["x"]).sum(), "n": 4})
    return lambda: program({"x": X})["loss"], [layer.w]


def several_results(kink, compiled):
    layer = Layer(kink)
    program = compiled(lambda x: (kink(layer.w * x), layer.w.square() + x))

    def run():
        first, second = program(X)
        return first.sum() + second.sum()

    return run, [layer.w]


def aliased_results(kink, compiled):
    layer = Layer(kink)

    def f(x):
        y = kink(layer.w * x)
        return y, y.view(2, 2)

    program = compiled(f)
    return lambda: torch.sum(program(X)[1]), [layer.w]


def nested(kink, compiled):
    layer = Layer(kink)
    inner = compiled(kink)
    outer = compiled(lambda x: inner(layer.w * x).sum())
    return lambda: outer(X), [layer.w]


def disabled_inside(kink, compiled):
    layer = Layer(kink)

    @torch.compiler.disable
    def f(x):
        return kink(x)

    program = compiled(lambda x: f(layer.w * x).sum() + layer.w.sum())
    return lambda: program(X), [layer.w]


def unrolled(kink, compiled):
    layer = Layer(kink)

    def f(x):
        h = layer.w * x
        for _ in range(3):
            h = kink(h) + layer.w
        return h.sum()

    program = compiled(f)
    return lambda: program(X), [layer.w]


def functional(kink, compiled):
    layer = Layer(kink)
    program = compiled(lambda w, x: torch.func.functional_call(layer, {"w": w}, (x,)).sum())
    return lambda: program(layer.w, X), [layer.w]


def written_in_place(kink, compiled):
    layer = Layer(kink)

    def f(x):
        y = torch.zeros(4) + layer.w
        y[1:3].mul_(x[1:3])
        return kink(y).sum()

    program = compiled(f)
    return lambda: program(X), [layer.w]


def gathered(kink, compiled):
    table = nn.Embedding(5, 3)
    nn.init.zeros_(table.weight)
    program = compiled(lambda i: kink(table(i)).sum())
    return lambda: program(torch.tensor([0, 2])), [table.weight]


def normalised(kink, compiled):
    net, layer = nn.LayerNorm(4), Layer(kink)
    program = compiled(lambda x: (net(x) * kink(layer.w * x)).sum())
    return lambda: program(X), [*net.parameters(), layer.w]


def two_calls_of_one(kink, compiled):
    layer = Layer(kink)
    program = compiled(lambda x: kink(layer.w * x).sum())
    return lambda: program(X) + program(2 * X), [layer.w]


def methods(kink, compiled):
    class Model(Layer):
        def loss(self, x):
            return self(x).sum()

    model = Model(kink)
    program = compiled(model.loss)
    return lambda: program(X), [model.w]


def hooked(kink, compiled):
    layer = Layer(kink)
    layer.register_forward_hook(lambda _m, _i, out: out * 3)
    program = compiled(layer)
    return lambda: program(X).sum(), [layer.w]


def attention(kink, compiled):
    layer = nn.Linear(4, 12)
    head = Layer(kink)

    def f(x):
        q, k, v = layer(x).chunk(3, -1)
        y = nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])
        return (y * kink(head.w)).sum() + kink(head.w).sum()

    program = compiled(f)
    torch.manual_seed(3)
    x = torch.randn(3, 4)
    return lambda: program(x), [*layer.parameters(), head.w]


def marked_dynamic(kink, compiled):
    layer = nn.Linear(4, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    program = compiled(lambda x: kink(layer(x)).mean())
    sizes = iter(range(5, 50))

    def run():
        x = torch.ones(next(sizes), 4)
        torch._dynamo.mark_dynamic(x, 0)
        return program(x)

    return run, list(layer.parameters())


def recurrent(kink, compiled):
    cell, layer = nn.GRUCell(4, 4), Layer(kink)

    def f(x):
        h = torch.zeros(1, 4)
        for _ in range(2):
            h = cell(x[None], h)
        return (h * kink(layer.w * x)).sum()

    program = compiled(f)
    return lambda: program(X), [*cell.parameters(), layer.w]


FORMS = (
    function, whole_graph, module, in_place, dynamic, broken, region, loss_only, custom_function,
    checkpointed, autocast_inside, buffers_written, part_without_gradients, branch_on_data,
    dictionaries, several_results, aliased_results, nested, disabled_inside, unrolled, functional,
    written_in_place, gathered, normalised, two_calls_of_one, methods, hooked, attention,
    marked_dynamic, recurrent,
)  # fmt: skip


def steps(form, kink, compiled, watching=None):
    """Gradients of three steps."""
    torch.manual_seed(0)
    run, leaves = form(kink, compiled)
    found = []

    def step():
        for x in leaves:
            x.grad = None
        run().backward()
        found.append([x.grad.clone() for x in leaves])

    step()  # before the audit
    made = dict(counters["stats"]), len(counters["recompiles"])
    if watching is None:
        step()
        step()
    else:
        with watching:
            step()
            step()
    return found, made, (dict(counters["stats"]), len(counters["recompiles"]))


def held(form, kink, backend, **options):
    compiled = partial(torch.compile, backend=backend, **options)
    plain = steps(form, kink, compiled)
    torch._dynamo.reset()
    counters.clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        watching = clarke.audit(lambda _: None, seconds=30)
        seen = steps(form, kink, compiled, watching)
    assert not [w for w in told if issubclass(w.category, AuditWarning) or "clarke" in w.filename]
    assert plain[1:] == seen[1:]  # as many graphs as without
    for one, other in zip(plain[0], seen[0], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    reasons = [s.reason for s in watching.steps]
    if kink is wrong:
        assert [s.verdict.name for s in watching.steps] == ["NOT_CLARKE"] * 2, reasons
    else:
        assert all(s.verdict.correct for s in watching.steps), reasons


QUICK = (function, broken, checkpointed)


@pytest.mark.parametrize("kink", [right, wrong], ids=lambda k: k.__name__)
@pytest.mark.parametrize(
    "form",
    [f if f in QUICK else pytest.param(f, marks=SLOW) for f in FORMS],
    ids=lambda f: f.__name__,
)
def test_without_kernels(form, kink):
    held(form, kink, "aot_eager")


@SLOW
@pytest.mark.parametrize("kink", [right, wrong], ids=lambda k: k.__name__)
@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_with_kernels_of_inductor(form, kink):
    held(form, kink, "inductor")
