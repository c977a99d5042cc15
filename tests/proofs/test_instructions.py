"""Instructions are the program: carried out anywhere, they give what torch gives.

They are written from definitions of operators and compared with torch at the point, on kinks, and
at other points, so that a definition that is wrong is seen.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn
from torch.nn import functional

import clarke
from clarke.constraints import resolve
from clarke.prepare import prepared
from clarke.proof.instructions import instructions
from clarke.steering import Program, analyse
from reference import cases, to_torch
from reference.instructions import carried_out
from reference.proofs import CHECKED, independent, own

X = torch.tensor([[0.0, 1.0, -2.0], [0.5, 0.0, 3.0]], dtype=torch.float64)


def leaf(x):
    return x.clone().requires_grad_()


def lowered(function, x):
    """The instructions of a program at a point, or why there are none."""
    with prepared(function, (leaf(x),), None) as run:
        analysis = resolve(analyse(run.trace, run.registry), run.registry, run.slots)
        return instructions(Program(analysis, run.slots))


def agrees(function, x, tries=6, scale=1.0):
    """Whether instructions and torch give the same at the point, at its kinks and elsewhere."""
    words, tensors = lowered(function, x)
    assert "missing" not in words, words
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(tensors["point"], x.to(torch.float64).reshape(-1))
    for n in range(tries):
        moved = torch.randn(x.shape, dtype=x.dtype, generator=generator) * scale
        at = x if n == 0 else x + moved.round() if n % 2 else x + moved
        mine = carried_out(tensors, words["output"], at.reshape(-1).tolist())
        assert mine == pytest.approx(float(function(at)), rel=1e-9, abs=1e-9), at
    return tensors


def weights(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def in_place(x):
    y = x.clone()
    y[0].mul_(3).add_(1)
    y[:, 1:] -= y[1, :1]
    y[torch.tensor([0, 1]), 0] = x[1, 2]
    return (y * y).sum()


def statistics(x):
    mean, var = torch.zeros(3, dtype=x.dtype), torch.ones(3, dtype=x.dtype)
    y = functional.batch_norm(x, mean, var, weights(3), weights(3), training=False)
    return (functional.batch_norm(y, None, None, training=True) ** 2 * weights(2, 3)).sum()


OPERATORS = {
    "pieces": lambda x: (functional.relu(x) + 2 * x.abs() - functional.hardtanh(x)).sum(),
    "leaky": lambda x: (functional.leaky_relu(x, 0.2) - functional.leaky_relu(x, -0.5)).sum(),
    "prelu": lambda x: functional.prelu(x, weights(1)[0].reshape(1)).sum(),
    "shrink": lambda x: (functional.softshrink(x, 0.75) * weights(2, 3)).sum(),
    "clamp": lambda x: (x.clamp(-1, 1) + x.clamp(min=0.5) + 2 * x.clamp(max=1.0)).sum(),
    "threshold": lambda x: functional.threshold(x, 0.5, -3.0).sum(),
    "extremes": lambda x: (torch.maximum(x, -x) + torch.minimum(x, x.flip(0))).sum(),
    "reduced": lambda x: x.amax(1).sum() + 3 * x.amin(0).sum() + x.max() * x.min(1).values.sum(),
    "kept": lambda x: ((x - x.mean(1, keepdim=True)) * x.sum(0, keepdim=True)).mean(),
    "masks": lambda x: (
        torch.where((x > 0) & (x <= 1) | ~(x >= -1), x, 3 * x) + (x != 0) * x + x.sign()
    ).sum(),
    "filled": lambda x: x.masked_fill(x < 0, 7.0).sum() + ((x == 0).double() * 2 + x).sum(),
    "smooth": lambda x: (x.exp() + x.tanh() + (x * x + 1).log() + (x * x + 2).sqrt()).sum(),
    "more": lambda x: (x.sigmoid() + functional.silu(x) + functional.softplus(x, 2.0)).sum(),
    "powers": lambda x: (x**3 + (x * x + 1) ** -2 + (x * x + 1).rsqrt() + 1 / (x * x + 3)).sum(),
    "near one": lambda x: ((x * x).log1p() + x.expm1() - torch.rsub(x, 2, alpha=3)).sum(),
    "products": lambda x: (x @ weights(3, 4)).sum() + (x @ x.T @ weights(2)).dot(weights(2)),
    "batches": lambda x: torch.baddbmm(weights(2, 1, 1), x[:, None], x[:, :, None], beta=2).sum(),
    "linear": lambda x: (functional.linear(x, weights(4, 3), weights(4)) ** 2).sum(),
    "softmax": lambda x: (x.softmax(1) * weights(2, 3)).sum() + x.log_softmax(0)[0, 1],
    "sums of exponentials": lambda x: x.logsumexp(1).sum() + torch.logsumexp(x, (0, 1)),
    "losses": lambda x: (
        functional.cross_entropy(x, torch.tensor([2, 0])) + functional.mse_loss(x, weights(2, 3))
    ),
    "ignored": lambda x: functional.cross_entropy(
        x, torch.tensor([2, -100]), ignore_index=-100, reduction="sum"
    ),
    "norms": lambda x: (functional.layer_norm(x, (3,), weights(3), weights(3)) ** 3).sum(),
    "statistics": statistics,
    "views": lambda x: (
        x.T.reshape(-1)[1:].unfold(0, 2, 1) * weights(4, 2)
        + x.repeat(2, 2).roll(1, 0).flip(1)[:, :2]
    ).sum(),
    "picked": lambda x: (
        x[torch.tensor([1, 0, 1])][:, [0, 2]].sum()
        + x.gather(1, torch.tensor([[2, 0], [1, 1]])).pow(2).sum()
        + x.index_select(1, torch.tensor([2, 2])).sum() * x.take(torch.tensor([4]))[0]
    ),
    "places that vary": lambda x: (
        (x.gather(1, x.argmax(1, keepdim=True)) * weights(2, 1)).sum()
        + (x.gather(0, x.argmin(0)[None]) * weights(3)).sum()
        + x.index_select(1, x[0].argmax()[None]).square().sum()
        + (x[:, x[1].argmin()[None]] * weights(2, 1)).sum()
        + (functional.embedding(x[:, 1].argmax()[None], x) * weights(3)).sum()
        + x.take(x.argmax()[None]).sum()
    ),
    "joined": lambda x: (
        torch.cat([x, 2 * x], 1).square().sum()
        + torch.stack(x.unbind(1)).amax(0).sum()
        + torch.cat(x.split([1, 2], 1)[::-1], 1)[0, 0]
    ),
    "written": in_place,
    "padded": lambda x: functional.max_pool2d(x[None], 2, 1, 1).sum(),
    "dropped": lambda x: (x * torch.tensor([[2.0, 0.0, 2.0]], dtype=x.dtype)).exp().sum(),
    "pairs": lambda x: (
        torch.addcmul(x, x, x.flip(1), value=-2)
        + torch.addcdiv(x, x, x * x + 2, value=3)
        + torch.lerp(x, 3 * x * x, 0.25)
        + torch.lerp(x, x.flip(0), x)
    ).sum(),
    "either": lambda x: (
        torch.where((x > 0) ^ (x <= 1), x, 3 * x).sum()
        + torch.where(torch.logical_xor(x > 0, x > 1), x, x * x).sum()
    ),
    "sums so far": lambda x: (x.cumsum(1) * x.cumsum(0) * weights(2, 3)).sum() + x[0, 1].cumsum(0),
    "products so far": lambda x: (x.cumprod(1) * weights(2, 3)).sum(),
    "lengths": lambda x: (
        ((x + 0.25).norm(dim=1, keepdim=True) * x).sum()
        + x.norm(p=1)
        + (x.norm(p=1, dim=0) * weights(3)).sum()
        + (x + 0.375).norm(p=torch.inf, dim=1).sum()
    ),
    "on a diagonal": lambda x: (torch.diag_embed(x, 1) @ weights(4)).sum() + x[0].diag()[1, 1],
    "triangles": lambda x: (x.triu() * x.tril(1) * weights(2, 3) + x.tril(-1)).sum(),
    "a single number": lambda x: x.sum().sum(0) + x[0, 0].amax(0) * x[1, 1].mean(-1),
    "added at places": lambda x: (
        torch.ones(2, 3, dtype=x.dtype).scatter_add(1, torch.tensor([[0, 0, 2], [1, 1, 1]]), x)
        * x.index_add(0, torch.tensor([1, 1]), x * x)
        * weights(2, 3)
    ).sum(),
    "in order": lambda x: (
        (x.sort(1).values * weights(2, 3)).sum()
        + (x.sort(0, descending=True).values * weights(2, 3)).sum()
        + (x.reshape(-1).msort() * weights(6)).sum()
        + (x.topk(2).values * weights(2, 2)).sum()
        + (x.topk(1, 0, largest=False).values * weights(1, 3)).sum()
    ),
    "by rank": lambda x: (
        x.kthvalue(2, 1).values.sum()
        + 3 * x.kthvalue(2, 0, keepdim=True).values.square().sum()
        + x.median()
        + (x.median(1).values * weights(2)).sum()
        + x.nanmedian(0, keepdim=True).values.sum()
        + x[0, 1].sort().values * x[0, 0].median()
    ),
    "largest so far": lambda x: (
        (x.cummax(1).values * x.cummin(0).values * weights(2, 3)).sum() + x[0, 1].cummax(0).values
    ),
    "made": lambda x: (x * torch.arange(3.0, dtype=x.dtype) + torch.ones_like(x)).sum(),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_instructions_are_the_program(name):
    agrees(OPERATORS[name], X)


@pytest.mark.parametrize(
    ("size", "stride", "pad", "dilation", "groups"),
    [(3, 1, 0, 1, 1), ((2, 3), (2, 1), (1, 0), 1, 1), (2, 1, 1, 2, 2)],
)
def test_images(size, stride, pad, dilation, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, size, stride, pad, dilation, groups).double().requires_grad_(False)

    def net(x):
        found = functional.max_pool2d(conv(x).relu(), 2, 1, 1)
        return (found * found).sum() - functional.max_pool2d(x, (2, 1), dilation=(2, 1)).sum()

    agrees(net, torch.randn(2, 2, 5, 6, dtype=torch.float64).round(), tries=4)


def test_other_types():
    agrees(lambda x: (x.double().relu() * 3).sum(), torch.tensor([0.0, 1.5], dtype=torch.float32))
    words, _ = lowered(lambda x: x.square().sum(), torch.tensor([1.0], dtype=torch.bfloat16))
    assert words["unit"] == -8


def test_an_operator_without_words_counts_where_its_result_is_read(tmp_path):
    """A count goes into Python, and nothing is computed from it."""

    def sliced(x):
        return x[:, : (x > 0.25).count_nonzero()].relu().sum()

    words, _ = lowered(sliced, X)
    assert "missing" not in words
    words, _ = lowered(lambda x: (x.relu() * (x > 0.25).count_nonzero()).sum(), X)
    assert words == {"missing": "the operator aten::count_nonzero.default"}
    path = clarke.check(sliced, (leaf(X),)).save(tmp_path / "a")
    assert (own(path)[0], independent(path)[0]) == (CHECKED, CHECKED)


def test_kinks_of_constants_are_written_where_they_are_told(tmp_path):
    """Clarke counts them, and a checker looks for each of them."""

    def padded(x):
        zeros = torch.zeros(2, dtype=x.dtype)
        both = torch.cat([x[0], zeros, zeros.abs()])
        return (
            functional.relu(both).sum() + both.abs().sum() + functional.threshold(both, 0, 0).sum()
        )

    path = clarke.check(padded, (leaf(X),)).save(tmp_path / "a")
    assert (own(path)[0], independent(path)[0]) == (CHECKED, CHECKED)


SORTED = {
    "sort": lambda x, w: (x.sort().values * w).sum(),
    "largest": lambda x, w: (x.topk(2).values * w[:2]).sum(),
    "smallest": lambda x, w: (x.topk(3, largest=False).values * w[:3]).sum(),
    "rank": lambda x, _: x.kthvalue(2).values * 2,
    "median": lambda x, _: x.median() - x[0],
    "so far": lambda x, w: (x.cummax(0).values * w).sum(),
    "difference": lambda x, _: x.topk(2).values.sum() - x.sort().values[:2].sum(),
}


@pytest.mark.parametrize("name", SORTED)
@pytest.mark.parametrize("point", [(1.0, 1.0, 2.0, 1.0), (3.0, 2.0, 1.0, 3.0)])
def test_ties_of_what_is_put_in_order_are_checked_by_both(name, point, tmp_path):
    w = torch.tensor([1.0, 2.0, 4.0, 3.0], dtype=torch.float64)
    report = clarke.check(lambda x: SORTED[name](x, w), (leaf(torch.tensor(point).double()),))
    assert report.certificate is not None
    path = report.save(tmp_path / "a")
    assert own(path)[0] == CHECKED
    assert independent(path) == (CHECKED, report.verdict.name)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(cases())
def test_random_programs(case):
    function, x = to_torch(case.expr), [float(p) for p in case.point]
    words, _ = lowered(function, torch.tensor(x, dtype=torch.float64))
    assert "missing" not in words, words
    agrees(function, torch.tensor(x, dtype=torch.float64), scale=2.0)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.topk(2, sorted=False).values[0, 0], "largest entries in no order"),
        (lambda x: x.gather(0, x.max(0).indices[None]).sum(), "what aten::max.dim returns besides"),
        (lambda x: (x * torch.inf).sum() * 0 + x.sum(), "the number inf"),
        (lambda x: (x * torch.tensor([torch.nan])).sum(), "a value that no operator"),
        (lambda x: x.abs().pow(0.3).sum(), "the power 0.3"),
        (lambda x: (x[0].abs() ** x[1]).sum(), "the power that varies"),
        (lambda x: functional.rrelu(x, training=True).sum(), "the operator aten::"),
        (lambda x: x.repeat(600, 600).square().sum(), "too large for exact arithmetic"),
    ],
)
def test_what_has_no_words_says_so(function, reason):
    words, tensors = lowered(function, X)
    assert reason in words["missing"]
    assert tensors == {}
