"""Which of PyTorch's kernels add up a gradient term by term in half precision: measured anew.

`clarke.steering.adding` knows them; what it takes for others must keep its terms.
"""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it

import clarke
from clarke import Verdict

N = 4096
HALVES = [torch.bfloat16, torch.float16]
ZEROS = torch.zeros(N, dtype=torch.long)


def grads(function, *shapes, dtype, spread=False):
    found = []
    for kind in (dtype, torch.float64):
        xs = [torch.ones(s, dtype=kind) for s in shapes]
        if spread and all(shapes):  # in memory with gaps, the dimensions in another order
            xs = [torch.stack([x, x], -1).transpose(0, -2)[..., 0].transpose(0, -1) for x in xs]
        xs = [x.requires_grad_() for x in xs]
        found.append(torch.autograd.grad(function(*xs).sum(), xs))
    return found


def left(found):
    """The smallest part of an entry that is left."""
    return min(
        float((a.double() / b)[b != 0].min()) for a, b in zip(*found, strict=True) if b.any()
    )


def ones(like, *shape):
    return torch.ones(*shape, dtype=like.dtype)


LOSING = {
    "index": ([(4, 3)], lambda x: x[ZEROS]),
    "index of columns": ([(3, 4)], lambda x: x[:, ZEROS]),
    "index_select, one dimension": ([(4,)], lambda x: x.index_select(0, ZEROS)),
    "index_select, in the middle": ([(3, 4, 5)], lambda x: x.index_select(1, ZEROS)),
    "take": ([(4,)], lambda x: x.take(ZEROS)),
    "repeat_interleave": ([(2,)], lambda x: x.repeat_interleave(torch.tensor([N, 1]))),
    "embedding": ([(4, 3)], lambda x: F.embedding(ZEROS, x)),
    "embedding_bag": ([(4, 3)], lambda x: F.embedding_bag(ZEROS.reshape(-1, 4), x, mode="sum")),
    "layer_norm": (
        [(4,), (4,)],
        lambda w, b: F.layer_norm(torch.arange(4).to(w).expand(N, 4).contiguous(), (4,), w, b),
    ),
    "replicate": ([(1, 1, 3)], lambda x: F.pad(x, (N, N), mode="replicate")),
    "grid_sample": (
        [(1, 1, 4, 4)],
        lambda x: F.grid_sample(x, ones(x, 1, 64, 64, 2) * 0.1, align_corners=False),
    ),
    "uses in a list": ([(3,)], lambda x: torch.cat([x] * N)),
}
LOSING_IN_BFLOAT16 = {
    "avg_pool1d": ([(1, 1, N)], lambda x: F.avg_pool1d(x, N // 2, 1)),
    "avg_pool2d": ([(1, 1, 64, 64)], lambda x: F.avg_pool2d(x, 32, 1)),
    "adaptive_avg_pool1d": ([(1, 1, 5)], lambda x: F.adaptive_avg_pool1d(x, N)),
    "max_pool1d": (
        [(1, 1, N)],
        lambda x: F.max_pool1d(x * (torch.arange(N) == N // 2).to(x.dtype), N // 2, 1),
    ),
    "tensor.unfold": ([(N,)], lambda x: x.unfold(0, N // 2, 1)),
    "im2col": ([(1, 1, 64, 64)], lambda x: F.unfold(x, 32)),
}
KEEPING = {
    "expand": ([(4,)], lambda x: x.expand(N, 4) * 2),
    "broadcast": ([(4,)], lambda x: x + ones(x, N, 4)),
    "broadcast in the middle": ([(3, 1, 2)], lambda x: x * ones(x, 3, N, 2)),
    "repeat": ([(4,)], lambda x: x.repeat(N)),
    "gather": ([(4,)], lambda x: x.gather(0, ZEROS)),
    "gather of rows": ([(4, 3)], lambda x: x.gather(0, ZEROS[:, None].expand(N, 3))),
    "mm": ([(4, 3)], lambda x: ones(x, N, 4) @ x),
    "mv": ([(4,)], lambda x: ones(x, N, 4) @ x),
    "bmm": ([(2, 4, 3)], lambda x: torch.bmm(ones(x, 2, N, 4), x)),
    "linear": ([(3, 4), (3,)], lambda w, b: F.linear(ones(w, N, 4), w, b)),
    "conv1d": ([(2, 1, 3), (2,)], lambda w, b: F.conv1d(ones(w, 1, 1, N), w, b)),
    "conv2d": ([(2, 1, 3, 3), (2,)], lambda w, b: F.conv2d(ones(w, 4, 1, 34, 34), w, b)),
    "prelu": ([(1,)], lambda w: F.prelu(-ones(w, N, 4), w)),
    "rms_norm": ([(4,)], lambda w: F.rms_norm(ones(w, N, 4), (4,), w)),
    "group_norm": (
        [(4,), (4,)],
        lambda w, b: F.group_norm(torch.arange(4).to(w).expand(N, 4).contiguous(), 1, w, b),
    ),
    "batch_norm": (
        [(4,)],
        lambda b: F.batch_norm(ones(b, N, 4), None, None, ones(b, 4), b, training=True),
    ),
    "cumsum": ([(N,)], lambda x: x.cumsum(0)),
    "cumprod": ([(N,)], lambda x: x.cumprod(0)),
    "nearest": ([(1, 1, 2, 2)], lambda x: F.interpolate(x, size=(64, 64))),
    "bilinear": ([(1, 1, 2, 2)], lambda x: F.interpolate(x, size=(64, 64), mode="bilinear")),
    "attention": (
        [(1, 1, 4, 8)],
        lambda v: F.scaled_dot_product_attention(ones(v, 1, 1, N, 8), ones(v, 1, 1, 4, 8), v),
    ),
    "where": ([()], lambda x: torch.where(ones(x, N) > 0, x, 0 * x)),
    "masked_fill": ([()], lambda x: (0 * ones(x, N)).masked_fill(ones(x, N) > 0, x)),
    "index_put": ([(1,)], lambda x: (0 * ones(x, N)).index_put((torch.arange(N),), x)),
    "fill": ([()], lambda x: (0 * ones(x, N)).fill_(x)),
    "fold": ([(1, 4, 63 * 63)], lambda x: F.fold(x, (64, 64), 2)),
    "rows of a table": ([(100,)], lambda x: torch.stack([x[i] * 2 for i in range(100)])),
}


def test_a_fused_recurrent_layer_keeps_its_terms():
    torch.manual_seed(0)
    layer, x = torch.nn.LSTM(3, 4).bfloat16(), torch.ones(1024, 1, 3)
    found = []
    for kind in (torch.bfloat16, torch.float64):
        layer.to(kind)
        out = layer(x.to(kind))[0].double().sum()
        found.append(torch.autograd.grad(out, list(layer.parameters())))
    for a, b in zip(*found, strict=True):
        assert float((a.double() - b).abs().max() / b.abs().max()) < 0.02


def test_uses_are_added_up_one_by_one():
    of_a_part = grads(lambda x: sum(x[0] for _ in range(600)), (3,), dtype=torch.bfloat16)
    of_all = grads(lambda x: sum(x * 1 for _ in range(600)), (3,), dtype=torch.bfloat16)
    assert max(left(of_a_part), left(of_all)) < 0.5


def verdict(function, shapes, dtype):
    xs = tuple(torch.ones(s, dtype=dtype, requires_grad=True) for s in shapes)
    return clarke.check(lambda *x: function(*x).sum(), xs)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", LOSING)
def test_these_lose_their_terms(name, dtype):
    shapes, function = LOSING[name]
    assert left(grads(function, *shapes, dtype=dtype)) < 0.6
    assert left(grads(function, *shapes, dtype=dtype, spread=True)) < 0.6
    if "uses" not in name:
        report = verdict(function, shapes, dtype)
        assert report.verdict is Verdict.UNDECIDED
        assert "one after the other" in report.reason


@pytest.mark.parametrize("name", LOSING_IN_BFLOAT16)
def test_these_lose_theirs_in_bfloat16(name):
    shapes, function = LOSING_IN_BFLOAT16[name]
    assert left(grads(function, *shapes, dtype=torch.bfloat16)) < 0.5
    if "pool" in name and "max" not in name:
        report = verdict(function, shapes, torch.bfloat16)
        assert report.verdict is Verdict.UNDECIDED
        assert "one after the other in bfloat16" in report.reason


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", KEEPING)
def test_these_keep_theirs(name, dtype):
    """They are known for that: their programs need no comparison."""
    shapes, function = KEEPING[name]
    assert left(grads(function, *shapes, dtype=dtype)) > 0.98
    assert left(grads(function, *shapes, dtype=dtype, spread=True)) > 0.98


@pytest.mark.parametrize("name", KEEPING)
def test_these_are_decided_without_a_comparison(name, monkeypatch):
    shapes, function = KEEPING[name]
    compared = []
    monkeypatch.setattr(
        "clarke.fast.lossy.lost_terms", lambda *_args: compared.append(1), raising=True
    )
    ws = [torch.nn.Parameter(torch.full(s, 0.5, dtype=torch.bfloat16)) for s in shapes]
    with clarke.audit(lambda _: None, seconds=10) as audit:
        for _ in range(2):
            function(*ws).sum().backward()
            for w in ws:
                w.grad = None
    assert not compared
    assert all(s.verdict is not Verdict.NOT_CLARKE for s in audit.steps)
