"""Formulas of autograd that do not hold at an input are refuted there, with the right value."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke import Verdict
from reference.leaves import leaf


def at(*index):
    return torch.tensor(index)


def extreme(x, reduce):
    return torch.zeros(1, dtype=x.dtype).scatter_reduce(0, at(0), x, reduce, include_self=False)


def in_place(x):
    return torch.zeros(1, dtype=x.dtype).scatter_reduce_(0, at(0), x, "amax", include_self=False)


def by_index(x):
    return torch.zeros(1, dtype=x.dtype).index_reduce(0, at(0), x, "amin", include_self=False)


def unpooled(x):
    return F.max_unpool1d(x[None, None], torch.tensor([[[0, 0]]]), [1], output_size=[2])


def reach(x):
    """Two windows share their maximum."""
    y, i = F.max_pool1d(x[None, None], 2, 1, return_indices=True)
    return F.max_unpool1d(y, i, 2, 1)


def square(x):
    return x.reshape(2, 2)


# Program, point, and the only gradient there (by hand).
WRONG = {
    "scatter amax": (lambda x: extreme(x, "amax").sum(), leaf(0.0), [1.0]),
    "scatter amin": (lambda x: extreme(x, "amin").sum(), leaf(0.0), [1.0]),
    "scatter amax in place": (lambda x: in_place(x).sum(), leaf(0.0), [1.0]),
    "index amin": (lambda x: by_index(x).sum(), leaf(0.0), [1.0]),
    "unpool": (lambda x: unpooled(x).sum(), leaf(1.0, 2.0), [0.0, 1.0]),
    "unpool beside a large term": (
        lambda x: unpooled(x).sum() + 1e3 * x.sum(),
        leaf(1.0, 2.0),
        [1000.0, 1001.0],
    ),
    "shared maximum": (lambda x: reach(x).sum(), leaf(0.0, 1.0, 0.0), [0.0, 1.0, 0.0]),
    "scatter": (
        lambda x: torch.zeros(2, dtype=x.dtype).scatter(0, at(0, 0), x).sum(),
        leaf(1.0, 2.0),
        [0.0, 1.0],
    ),
    "index_put": (
        lambda x: torch.zeros(2, dtype=x.dtype).index_put((at(1, 1),), x).sum(),
        leaf(1.0, 2.0),
        [0.0, 1.0],
    ),
    "index_put_": (
        lambda x: torch.zeros(2, dtype=x.dtype).index_put_((at(1, 1),), x).sum(),
        leaf(1.0, 2.0),
        [0.0, 1.0],
    ),
    "index_copy": (
        lambda x: torch.zeros(2, dtype=x.dtype).index_copy(0, at(1, 1), x).sum(),
        leaf(1.0, 2.0),
        [0.0, 1.0],
    ),
    "put": (
        lambda x: torch.zeros(2, dtype=x.dtype).put(at(1, 1), x).sum(),
        leaf(1.0, 2.0),
        [0.0, 1.0],
    ),
    "polar": (lambda x: torch.polar(x, x.detach() * 0).real.sum(), leaf(-1.0), [1.0]),
    "determinant": (
        lambda x: torch.linalg.det(x.reshape(3, 3)),
        leaf(1.0, 0, 0, 0, 0, 0, 0, 0, 2),
        [0, 0, 0, 0, 2.0, 0, 0, 0, 0],
    ),
    "determinant of rank 1": (
        lambda x: torch.linalg.det(square(x)),
        leaf(0.0, 1, 0, 0),
        [0, 0, -1, 0],
    ),
    "eigenvalues": (
        lambda x: torch.linalg.eigvalsh(square(x)).prod(),
        leaf(2.0, 9.0, 0.5, 3.0),
        [3.0, 0, -1.0, 2],
    ),
    "cholesky": (
        lambda x: torch.linalg.cholesky(square(x))[1, 0],
        leaf(4.0, 9.0, 2.0, 3.0),
        [-1 / 8, 0, 1 / 2, 0],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_refuted_with_the_right_value(name):
    function, x, right = WRONG[name]
    report = clarke.check(function, (x,))
    assert report.verdict is Verdict.NOT_CLARKE, report
    assert report.certificate.verify()
    right = torch.tensor(right, dtype=torch.float64)
    assert torch.allclose(report.element[0], right, atol=1e-9)
    assert torch.allclose(clarke.grad(function, (x,))[0], right, atol=1e-9)
    assert report.culprits


@pytest.mark.parametrize("name", [n for n in WRONG if "large" not in n])
def test_in_single_precision_and_in_an_audit(name):
    function, x, right = WRONG[name]
    x = x.detach().to(torch.float32).requires_grad_()
    assert clarke.check(function, (x,)).verdict is Verdict.NOT_CLARKE
    with clarke.audit("repair") as audit:
        function(x).backward()
    assert audit.steps[0].verdict is Verdict.NOT_CLARKE
    assert torch.allclose(x.grad.to(torch.float64), torch.tensor(right).double(), atol=1e-5)


RIGHT = {
    "regular determinant": (lambda x: torch.linalg.det(square(x)), leaf(2.0, 0.3, 0.5, 3.0)),
    "rank 0": (lambda x: torch.linalg.det(x.reshape(3, 3)), leaf(*[0.0] * 9)),
    "sixth power": (lambda x: (x * x * x * x * x * x).sum(), leaf(0.0, 0.0)),
    "symmetrised": (
        lambda x: torch.linalg.eigvalsh(square(x) + square(x).mT)[0],
        leaf(2.0, 0.3, 0.5, 3.0),
    ),
    "scatter amax that counts": (
        lambda x: torch.full((1,), -1.0, dtype=x.dtype).scatter_reduce(0, at(0), x, "amax").sum(),
        leaf(0.0),
    ),
    "distinct": (
        lambda x: torch.zeros(2, dtype=x.dtype).scatter(0, at(1, 0), x).sum(),
        leaf(1.0, 2.0),
    ),
    "empty bag": (
        lambda x: F.embedding_bag(at(1), x.reshape(2, 1), at(0, 1), mode="max").sum(),
        leaf(1.0, 2.0),
    ),
    "segment": (
        lambda x: torch.segment_reduce(
            x, "max", lengths=at(1, 0, 1), initial=-1.0, unsafe=True
        ).sum(),
        leaf(1.0, 2.0),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_not_refuted(name):
    function, x = RIGHT[name]
    assert clarke.check(function, (x,)).verdict is Verdict.SMOOTH


@pytest.mark.parametrize("factor", [1.25, -1.0])
def test_what_a_hook_makes_of_a_gradient_is_not_called_torchs_formula(factor):
    def function(x):
        y = x * 1
        y.register_hook(lambda g: g * factor)
        return y.sum()

    report = clarke.check(function, (leaf(1.0),))
    assert report.verdict is Verdict.UNDECIDED


TABLE = torch.tensor([[0, 1, 0], [2, 2, 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_padding_row_is_a_declared_constant(dtype, sparse):
    torch.manual_seed(0)
    layer = torch.nn.Embedding(4, 2, padding_idx=0, sparse=sparse, dtype=dtype)
    torch.nn.init.normal_(layer.weight)
    report = clarke.check(lambda: layer(TABLE).pow(2).sum())
    assert report.verdict is Verdict.SMOOTH
    assert report.certificate.verify()
    assert len([n for n in report.notes if "padding_idx" in n]) == 1
    for settings in (None, clarke.Settings(quick=False)):
        with clarke.audit(settings=settings) as audit:
            layer(TABLE).pow(2).sum().backward()
        assert audit.steps[0].verdict is Verdict.SMOOTH


def test_the_rest_of_a_padded_table_is_judged():
    layer = torch.nn.Embedding(3, 1, padding_idx=0, dtype=torch.float64)
    torch.nn.init.zeros_(layer.weight)

    def function():
        h = layer(TABLE)
        return (F.relu(h) - F.relu(-h)).sum()

    report = clarke.check(function)
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].flatten().tolist() == [0.0, 2.0, 2.0]


def test_scaling_by_frequency_declares_a_derivative():
    layer = torch.nn.Embedding(4, 2, scale_grad_by_freq=True)
    assert clarke.check(lambda: layer(TABLE).pow(2).sum()).verdict is Verdict.SURROGATE
    assert clarke.check(lambda: layer(at(0, 3)).pow(2).sum()).verdict is Verdict.SMOOTH
