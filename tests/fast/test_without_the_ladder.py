"""What needs no ladder: writes into shared memory, kinks of one slope, slopes of slopes."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody names it

import clarke
from clarke import Verdict
from clarke.fast import Declined, QuickJudge

LADDER = clarke.Settings(quick=False)


@pytest.fixture
def declined(monkeypatch):
    """Why the quick judge left something to the ladder."""
    found = []
    for name in ("decide", "recall", "settle"):
        judge = getattr(QuickJudge, name)

        def noted(*args, judge=judge, **kwargs):
            answer = judge(*args, **kwargs)
            if isinstance(answer, Declined) and answer.pending is None:
                found.append(str(answer))
            return answer

        monkeypatch.setattr(QuickJudge, name, noted)
    return found


def verdicts(step, steps=3, settings=None):
    with clarke.audit(lambda _: None, settings=settings, seconds=30) as a:
        for _ in range(steps):
            step()
    return [s.verdict for s in a.steps]


def redundancy():
    net = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 5))

    def step():
        a, b = (F.normalize(net(torch.randn(8, 6)), dim=0) for _ in range(2))
        c = a.T @ b
        on = torch.diagonal(c).add_(-1).pow_(2).sum()
        (on + c.flatten()[:-1].view(4, 6)[:, 1:].flatten().pow_(2).sum()).backward()

    return step


def experts():
    gate, nets = nn.Linear(6, 3), nn.ModuleList(nn.Linear(6, 2) for _ in range(3))

    def step():
        x = torch.randn(9, 6)
        weight, chosen = gate(x).softmax(-1).topk(2, dim=-1)
        out = torch.zeros(9, 2)
        for k, net in enumerate(nets):
            rows = (chosen == k).any(-1).nonzero().squeeze(-1)
            share = (weight * (chosen == k))[rows].sum(-1, keepdim=True)
            out.index_add_(0, rows, net(x[rows]) * share)
        out.square().mean().backward()

    return step


def penalty():
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))

    def step():
        x = torch.randn(5, 4, requires_grad=True)
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        ((slope.norm(dim=1) - 1) ** 2).mean().backward(inputs=list(net.parameters()))

    return step


def attention_over_edges():
    ends = torch.tensor([[0, 0, 1, 2, 3, 3, 3], [1, 1, 2, 0, 2, 2, 1]])
    layer, score, x = nn.Linear(3, 4), nn.Linear(8, 1), torch.randn(5, 3)

    def step():
        h = layer(x)
        both = torch.cat([h[ends[0]], h[ends[1]]], 1)
        e = F.leaky_relu(score(both).squeeze(1), 0.2)
        top = torch.full((5,), -1e9).scatter_reduce(0, ends[1], e, "amax")
        e = (e - top[ends[1]]).exp()
        share = e / (torch.zeros(5).index_add(0, ends[1], e) + 1e-16)[ends[1]]
        out = torch.zeros(5, 4).index_add(0, ends[1], h[ends[0]] * share[:, None])
        F.elu(out).square().mean().backward()  # nodes that nothing reaches: exactly zero

    return step


def at_the_bounds():
    w = torch.tensor([1.0, -1.0, 0.5, 0.0], requires_grad=True)

    def step():
        huber = F.huber_loss(w, torch.zeros(4)) + F.smooth_l1_loss(w, torch.zeros(4))
        (huber + F.elu(w).sum() + F.celu(w, 2.0).sum()).backward()

    return step


def frozen_features():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    net.requires_grad_(False)
    image = torch.rand(1, 1, 6, 6).round().requires_grad_()

    def step():
        net(image).square().sum().backward()

    return step


def largest_of_a_set():
    each = nn.Sequential(nn.Conv1d(2, 6, 1), nn.BatchNorm1d(6), nn.ReLU())

    def step():
        each(torch.randn(3, 2, 4)).max(2)[0].square().sum().backward()

    return step


def pooled_behind_a_sum():
    inner, outer = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 1)

    def step():
        x = torch.randn(2, 1, 4, 4)
        y = inner(x)
        y += outer(x)
        F.max_pool2d(F.relu_(y), 2).square().sum().backward()

    return step


@pytest.mark.parametrize(
    "make",
    [
        largest_of_a_set,
        pooled_behind_a_sum,
        redundancy,
        experts,
        penalty,
        attention_over_edges,
        at_the_bounds,
        frozen_features,
    ],
    ids=lambda make: make.__name__,
)
def test_no_ladder(make, declined):
    torch.manual_seed(3)
    step = make()
    found = verdicts(step)
    assert set(found) == {Verdict.SMOOTH}
    assert declined == []
    assert set(verdicts(step, settings=LADDER)) == {Verdict.SMOOTH}


@pytest.mark.parametrize("loss", [F.huber_loss, F.smooth_l1_loss])
def test_a_slope_below_zero_that_is_not_one_is_a_kink(loss):
    w = torch.zeros(2, requires_grad=True)
    with clarke.audit(lambda _: None) as a:
        (F.elu(w, 1.5).sum() - F.elu(-w, 1.5).sum()).backward()
    assert a.steps[0].verdict is not Verdict.SMOOTH
    with clarke.audit(lambda _: None) as a:
        loss(w, torch.zeros(2)).backward()
    assert a.steps[0].verdict is Verdict.SMOOTH


@pytest.mark.parametrize("w", [[0.0, -1.0, -1.0], [-1.0, -2.0, -2.0]])
def test_the_largest_of_units_at_their_kink_is_a_kink(w):
    w = torch.tensor(w, requires_grad=True)
    with clarke.audit(lambda _: None) as a:
        torch.relu(w).max(0).values.backward()
    assert (a.steps[0].verdict is Verdict.SMOOTH) is bool((w != 0).all())


def written(seed):
    """A random program that writes into parts of its memory, at small whole numbers."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    start = torch.tensor([float(rng.randint(-2, 2)) for _ in range(6)], dtype=torch.float64)

    def step():
        rng = random.Random(seed)  # noqa: S311 - no secret
        w = start.clone().requires_grad_()
        memory = w * rng.choice((1, -1, 2))
        for _ in range(rng.randint(2, 5)):
            low = rng.randint(0, 4)
            part = memory[low : rng.randint(low + 1, 6)]
            kind = rng.randint(0, 6)
            if kind == 0:
                part.copy_(part.clone().relu())
            elif kind == 1:
                part.copy_(part.clone() * w[: len(part)])
            elif kind == 2:
                part.add_(memory[: len(part)].clone().abs())
            elif kind == 3:
                memory = memory + part.max()
            elif kind == 4:
                part.copy_(torch.maximum(part.clone(), w[-len(part) :]))
            elif kind == 5:
                memory.masked_fill_(w > 1, 0.5)
            else:
                part.copy_(part.clone().clamp(min=rng.choice((-1, 0))))
        (memory * torch.arange(1.0, 7, dtype=torch.float64)).sum().backward()

    return step


@pytest.mark.parametrize("seed", range(40))
def test_writes_into_shared_memory_are_judged_as_by_the_ladder(seed):
    (quick,) = verdicts(written(seed), 1)
    (slow,) = verdicts(written(seed), 1, LADDER)
    assert quick is slow or (quick is Verdict.SMOOTH and slow.correct)


def test_a_leaf_that_is_clamped_between_steps_with_parts_of_it_read():
    """Projected descent on an image with total variation: `clamp_` before every step."""
    torch.manual_seed(0)
    image = torch.rand(4, 4, requires_grad=True)
    descent = torch.optim.SGD([image], lr=0.1)

    def step():
        with torch.no_grad():
            image.clamp_(0, 1)
        descent.zero_grad()
        ((image[1:] - image[:-1]).square().sum() + image[1:].square().sum()).backward()
        descent.step()

    step()
    assert verdicts(step, 4) == [Verdict.SMOOTH] * 4


def test_a_part_that_is_read_before_and_after_a_hidden_write_stays_undecided():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    with clarke.audit(lambda _: None) as a:
        ((w * 1)[:1].sum()).backward()
        part = w[:1]
        w.data.add_(1)
        w.data.add_(1)
        (part * w[1:]).sum().backward()
    assert a.steps[-1].verdict is Verdict.UNDECIDED


def test_operations_without_forward_mode_are_judged():
    """Packing sequences has no forward-mode derivative in torch."""
    w = torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]], dtype=torch.float64, requires_grad=True)

    def f(x):
        packed = nn.utils.rnn.pack_padded_sequence(torch.relu(x) - torch.relu(-x), [2, 2], True)
        return packed.data.square().sum() + packed.data.sum()

    report = clarke.check(f, w)
    assert report.verdict is Verdict.NOT_CLARKE  # x² + x, of which autograd loses the x at 0
    assert float(report.element[0][1, 1, 0]) == 1
