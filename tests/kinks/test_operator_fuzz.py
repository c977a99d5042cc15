"""Random reductions and writes by index, against difference quotients at many points nearby.

All of them are piecewise linear, or polynomial: gradients at random points beside
the given one, taken from values alone, are (up to curvature) the limiting gradients.
"""

import os

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke import Verdict
from clarke.feasibility import convex_weights

COUNT = int(os.environ.get("CLARKE_FUZZ", "12"))
SAMPLES = 24


class Draw:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, low, high, *shape):
        return torch.randint(low, high, shape, generator=self.generator)

    def one(self, *choices):
        return choices[int(self(0, len(choices)))]


def scatter_reduce(d):
    n, m = d.one(1, 2, 3), d.one(1, 2, 3, 4)
    reduce, include = d.one("amax", "amin", "sum", "mean", "prod"), d.one(True, False)
    index, weight, place = d(0, n, m), d(1, 4, n).double(), d.one(True, False)

    def function(x, base):
        y = base * 1.0
        call = y.scatter_reduce_ if place else y.scatter_reduce
        return (weight * call(0, index, x, reduce, include_self=include)).sum()

    return function, (d(-1, 2, m), d(-1, 2, n))


def index_reduce(d):
    n, m = d.one(1, 2, 3), d.one(1, 2, 3, 4)
    reduce, include = d.one("amax", "amin", "mean", "prod"), d.one(True, False)
    index, weight = d(0, n, m), d(1, 4, n).double()

    def function(x, base):
        return (weight * base.index_reduce(0, index, x, reduce, include_self=include)).sum()

    return function, (d(-1, 2, m), d(-1, 2, n))


def segment_reduce(d):
    reduce, lengths = d.one("max", "min", "sum", "mean", "prod"), d(1, 4, 3)
    initial, weight = d.one(None, 0.0, 1.0, -1.0), d(1, 4, 3).double()
    given = {} if initial is None else {"initial": initial}

    def function(x):
        found = torch.segment_reduce(x, reduce, lengths=lengths, unsafe=True, **given)
        return (weight * found).sum()

    return function, (d(-1, 2, int(lengths.sum())),)


def embedding_bag(d):
    mode, k, padding = d.one("max", "mean", "sum"), d.one(1, 2, 3, 4), d.one(None, 0)
    index, weight = d(0, 3, k), d(1, 4, 2, 2).double()
    start = torch.tensor([0, int(d(0, k + 1))])

    def function(x):
        return (weight * F.embedding_bag(index, x, start, mode=mode, padding_idx=padding)).sum()

    return function, (d(-1, 2, 3, 2),)


def unpool(d):
    n = d.one(1, 2, 3)
    index, weight = d(0, 4, 1, 1, n), d(1, 4, 4).double()

    def function(x):
        found = torch.ops.aten.max_unpool2d(x.reshape(1, 1, n), index, [1, 4])
        return (weight * found.reshape(-1)).sum()

    return function, (d(-1, 2, n),)


def write(d):
    n, m = d.one(1, 2, 3), d.one(1, 2, 3, 4)
    index, weight = d(0, n, m), d(1, 4, n).double()
    call = d.one(
        lambda y, x: y.scatter(0, index, x),
        lambda y, x: y.index_copy(0, index, x),
        lambda y, x: y.index_put((index,), x),
        lambda y, x: y.put(index, x),
        lambda y, x: (y * 1).index_put_((index,), x),
    )
    return lambda x, y: (weight * call(y, x)).sum(), (d(-1, 2, m), d(-1, 2, n))


def nearby(function, inputs, generator):
    """(SAMPLES, n) gradients beside the point, from values alone."""
    sizes = [x.numel() for x in inputs]
    flat = torch.cat([x.detach().reshape(-1) for x in inputs])
    steps = 1e-7 * torch.eye(len(flat), dtype=torch.float64)

    def value(v):
        parts = [p.reshape(x.shape) for p, x in zip(v.split(sizes), inputs, strict=True)]
        with torch.no_grad():
            return float(function(*parts))

    found = []
    for _ in range(SAMPLES):
        moved = flat + 1e-3 * torch.randn(flat.shape, dtype=torch.float64, generator=generator)
        found.append([(value(moved + e) - value(moved - e)) / 2e-7 for e in steps])
    return np.array(found)


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("seed", range(COUNT))
@pytest.mark.parametrize(
    "kind", [scatter_reduce, index_reduce, segment_reduce, embedding_bag, unpool, write]
)
def test_against_gradients_nearby(kind, seed):
    d = Draw(seed)
    function, values = kind(d)
    inputs = tuple(v.double().requires_grad_() for v in values)
    limits = nearby(function, inputs, d.generator)
    report = clarke.check(function, inputs)
    own = torch.cat([g.reshape(-1) for g in report.gradient]).numpy()
    inside = convex_weights(limits, own, tolerance=0.02) is not None
    assert report.verdict is not Verdict.UNDECIDED
    assert inside is report.verdict.correct
    chosen = torch.cat([g.reshape(-1) for g in clarke.grad(function, inputs)]).numpy()
    # A convex combination: few samples may miss a cell.
    assert convex_weights(limits, chosen, tolerance=0.02) is not None
