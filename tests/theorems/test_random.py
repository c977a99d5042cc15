"""Random small networks at adversarial points: what `explain` claims is compared with exact sets.

Weights and inputs are small integers held constant, biases are the variables, so every network is
piecewise affine and `reference.bouligand` enumerates its Bouligand subdifferential in rationals.
The points are full of zeros and repeated values, so that kinks are touched.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from hypothesis import event, given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 - its usual name

from clarke.explain import explain
from clarke.theorems import Strength
from reference import bouligand, contains, exact
from reference.build import absolute, hardtanh, leaky_relu, relu, variables
from reference.expr import Const


class Kind(Enum):
    RELU = "relu"
    LEAKY = "leaky"
    ABS = "abs"
    HARDTANH = "hardtanh"
    STEPPED = "relu(x) - relu(x - 1)"
    OPPOSED = "relu(x) - relu(-x)"
    TWICE = "relu(-relu(x))"
    PAIR = "maximum(x, 0)"


@dataclass(frozen=True)
class Layer:
    weights: tuple[tuple[int, ...], ...]  # (neurons, previous)
    kind: Kind
    bias: int | None  # a leaf, perhaps one used before
    order: tuple[int, ...]  # which entry of the leaf each neuron gets
    factor: int
    centred: bool
    skip: bool


@dataclass(frozen=True)
class Net:
    inputs: tuple[tuple[int, ...], ...]  # (batch, 2)
    leaves: tuple[tuple[int, ...], ...]
    layers: tuple[Layer, ...]
    out: tuple[int, ...]
    frozen: frozenset[int]


SMALL = st.integers(-1, 1)


@st.composite
def nets(draw):
    batch = draw(st.sampled_from([1, 1, 2]))
    inputs = tuple(tuple(draw(SMALL) for _ in range(2)) for _ in range(batch))
    layers, leaves, width = [], [], 2
    for _ in range(draw(st.integers(1, 3))):
        neurons = 2
        weight = st.tuples(*[st.integers(-1, 2)] * width)
        weights = tuple(draw(weight) for _ in range(neurons))
        how = draw(st.sampled_from(["own", "own", "own", "own", "own", "reuse", "none"]))
        bias = None
        if how == "own" or (how == "reuse" and not leaves):
            leaves.append(tuple(draw(SMALL) for _ in range(neurons)))
            bias = len(leaves) - 1
        elif how == "reuse":
            bias = draw(st.integers(0, len(leaves) - 1))
        layers.append(
            Layer(
                weights,
                draw(st.sampled_from([*Kind, Kind.RELU, Kind.RELU])),
                bias,
                draw(st.sampled_from([(0, 1), (0, 1), (1, 0), (0, 0)])),
                draw(st.sampled_from([1, 1, 1, 2, -1, 0])),
                draw(st.sampled_from([False, False, False, True])),
                draw(st.booleans()),
            )
        )
        width = neurons
    frozen = frozenset(i for i in range(len(leaves)) if draw(st.sampled_from([0, 0, 0, 1])))
    return Net(inputs, tuple(leaves), tuple(layers), (draw(SMALL), draw(SMALL)), frozen)


class Module(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.leaves = torch.nn.ParameterList(
            torch.nn.Parameter(torch.tensor(v, dtype=torch.float64), i not in net.frozen)
            for i, v in enumerate(net.leaves)
        )

    def forward(self, x):
        for layer in self.net.layers:
            y = x @ torch.tensor(layer.weights, dtype=torch.float64).T
            if layer.bias is not None:
                b = self.leaves[layer.bias]
                if layer.order != (0, 1):
                    b = torch.stack([b[i] for i in layer.order])
                y = y + layer.factor * b
            if layer.centred:
                y = y - 0.5 * (y[:, :1] + y[:, 1:])
            z = ACT[layer.kind](y)
            x = z + x if layer.skip else z
        return (x * torch.tensor(self.net.out, dtype=torch.float64)).sum()


ACT = {
    Kind.RELU: F.relu,
    Kind.LEAKY: lambda y: F.leaky_relu(y, 0.25),
    Kind.ABS: torch.abs,
    Kind.HARDTANH: F.hardtanh,
    Kind.STEPPED: lambda y: F.relu(y) - F.relu(y - 1),
    Kind.OPPOSED: lambda y: F.relu(y) - F.relu(-y),
    Kind.TWICE: lambda y: F.relu(-F.relu(y)),
    Kind.PAIR: lambda y: torch.maximum(y, torch.zeros_like(y)),
}
EXACT = {
    Kind.RELU: relu,
    Kind.LEAKY: leaky_relu,
    Kind.ABS: absolute,
    Kind.HARDTANH: hardtanh,
    Kind.STEPPED: lambda y: relu(y) - relu(y - 1),
    Kind.OPPOSED: lambda y: relu(y) - relu(-y),
    Kind.TWICE: lambda y: relu(-relu(y)),
    Kind.PAIR: relu,
}


def combine(weights, values):
    zero = Const(exact([0])[0])
    return sum((w * v for w, v in zip(weights, values, strict=True)), zero)


def as_expr(net):
    free = [i for i in range(len(net.leaves)) if i not in net.frozen]
    names = iter(variables(2 * len(free)))
    leaf = {
        i: [next(names) for _ in v] if i in free else [Const(exact([e])[0]) for e in v]
        for i, v in enumerate(net.leaves)
    }
    point = [e for i in free for e in net.leaves[i]]
    total = Const(exact([0])[0])
    for row in net.inputs:
        x = [Const(exact([v])[0]) for v in row]
        for layer in net.layers:
            y = [combine(ws, x) for ws in layer.weights]
            if layer.bias is not None:
                y = [
                    a + layer.factor * leaf[layer.bias][i]
                    for a, i in zip(y, layer.order, strict=True)
                ]
            if layer.centred:
                mean = exact([0.5])[0] * (y[0] + y[1])
                y = [a - mean for a in y]
            z = [EXACT[layer.kind](a) for a in y]
            x = [a + b for a, b in zip(z, x, strict=True)] if layer.skip else z
        total = total + combine(net.out, x)
    return total, point


def judge(net):
    """Explain, and compare a claim with the exact set; returns the theorem claimed or None."""
    model = Module(net)
    x = torch.tensor(net.inputs, dtype=torch.float64)
    free = [p for p in model.leaves if p.requires_grad]
    if not free:
        return None
    loss = model(x)
    if not loss.requires_grad:
        return None
    found = explain(model, (x,))
    if not found.always_correct:
        return None
    grads = torch.autograd.grad(loss, free, allow_unused=True)
    flat = [
        float(v)
        for g, p in zip(grads, free, strict=True)
        for v in (torch.zeros_like(p) if g is None else g).tolist()
    ]
    expr, point = as_expr(net)
    elements = bouligand(expr, point)
    assert contains(elements, flat), (net, found.theorem, flat, elements)
    if found.strength is not Strength.CLARKE:
        assert exact(flat) in elements, (net, found.theorem, flat, elements)
    if found.strength is Strength.GRADIENT:
        assert len(elements) == 1
    return found.theorem, len(elements) > 1


@given(nets())
def test_a_claim_is_never_refuted(net):
    claim = judge(net)
    event(f"claims {claim[0].name if claim else None}")


def test_claims_are_made_where_kinks_are_touched():
    """The test above is not empty: among plain draws many claims meet real kinks."""
    generator = torch.Generator().manual_seed(0)

    def number(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    claims = []
    for _ in range(150):
        layers = tuple(
            Layer(
                tuple(tuple(number(-1, 1) for _ in range(2)) for _ in range(2)),
                list(Kind)[number(0, len(Kind) - 1)],
                i,
                (0, 1),
                1,
                centred=False,
                skip=bool(number(0, 1)),
            )
            for i in range(number(1, 2))
        )
        leaves = tuple((number(-1, 1), number(-1, 1)) for _ in layers)
        batch = number(1, 2)
        inputs = tuple((number(-1, 1), number(-1, 1)) for _ in range(batch))
        claim = judge(Net(inputs, leaves, layers, (1, -1), frozenset()))
        if claim:
            claims.append(claim)
    assert sum(kinked for _, kinked in claims) >= 20
    assert len({theorem for theorem, kinked in claims if kinked}) >= 3
