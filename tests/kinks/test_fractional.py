"""Fractional maxpools against brute force over windows, and verdicts at their ties."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.capture import Recorder, collect_trace
from clarke.kinks import Call, Hazard, default_registry
from clarke.kinks.fractional import pool_at, window_places
from clarke.steering.adapt import adapted
from clarke.verdict import Verdict

ATEN = torch.ops.aten
GOOD = (Verdict.BOULIGAND, Verdict.CLARKE)
SIZES = {
    2: [((6, 7), (2, 3), (3, 2)), ((5, 9), (2, 2), (1, 5)), ((4, 4), (1, 2), (4, 1))],
    3: [((4, 5, 6), (2, 2, 1), (2, 3, 4)), ((5, 4, 4), (2, 2, 2), (2, 1, 2))],
}
CASES = [(rank, *sizes) for rank, rows in SIZES.items() for sizes in rows]


def first_places(space, kernel, out, sample):
    """The sequence of the kernel's source, one number after the other."""
    if out == 1:
        return [space - kernel]
    step = (space - kernel) / (out - 1)
    places = [int((i + sample) * step) - int(sample * step) for i in range(out - 1)]
    return [*places, space - kernel]


def windows(space, kernel, out, sample):
    """The flat places of every window of one image."""
    rank = len(space)
    order = reversed(sample.tolist()) if rank == 2 else sample.tolist()
    rows = [first_places(*row) for row in zip(space, kernel, out, order, strict=True)]
    flat = torch.arange(torch.Size(space).numel()).reshape(space)
    return [
        flat[tuple(slice(a, a + k) for a, k in zip(corner, kernel, strict=True))].reshape(-1)
        for corner in itertools.product(*rows)
    ]


def recorded(rank, space, kernel, out, dtype=torch.float64, seed=0):
    """A recorded call on small integers, which tie often."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 3, (2, 2, *space), generator=generator).to(dtype).requires_grad_()
    samples = torch.rand(2, 2, rank, dtype=dtype, generator=generator)
    func = getattr(ATEN, f"fractional_max_pool{rank}d")
    registry = default_registry()
    recorder = Recorder(registry.keeps)
    with recorder:
        values, _ = func(x, list(kernel), list(out), samples)
        trace = collect_trace(recorder, values.sum())
        recorder.paused = True
        (gradient,) = torch.autograd.grad(values.sum(), [x])
    op = next(o for o in trace.ops if "fractional" in o.name)
    return x.detach(), samples, values.detach(), gradient, op, registry.known(op.func).rule


@pytest.mark.parametrize(("rank", "space", "kernel", "out"), CASES)
@pytest.mark.parametrize("seed", range(4))
def test_ties_are_those_of_brute_force(rank, space, kernel, out, seed):
    x, samples, values, gradient, op, rule = recorded(rank, space, kernel, out, seed=seed)
    touch = rule.find(op)
    plane = torch.Size(space).numel()
    expected, cell = {}, 0
    for image, sample in zip(x.reshape(-1, plane), samples.reshape(-1, rank), strict=True):
        start = plane * (cell // torch.Size(out).numel())
        for window in windows(space, kernel, out, sample):
            assert image[window].max() == values.reshape(-1)[cell]
            tied = window[image[window] == image[window].max()]
            if tied.numel() > 1:
                expected[cell] = set((tied + start).tolist())
            cell += 1
    found = {
        int(e): set(touch.members[touch.owner == k].tolist()) for k, e in enumerate(touch.elements)
    }
    assert expected
    assert found == expected
    assert not touch.hazards
    # AD follows the chosen element of each window.
    credit = torch.zeros(x.numel(), dtype=x.dtype)
    credit.index_add_(0, touch.base, torch.ones(touch.base.numel(), dtype=x.dtype))
    assert torch.equal(credit, gradient.reshape(-1))


@pytest.mark.parametrize(("rank", "space", "kernel", "out"), CASES)
def test_every_tied_choice_evaluates_to_the_value(rank, space, kernel, out):
    x, samples, values, _, op, rule = recorded(rank, space, kernel, out)
    touch = rule.find(op)
    call = Call(op.func, (x, list(kernel), list(out), samples), {})
    assert torch.equal(rule.evaluate(call, touch.base, touch)[0], values)
    last = torch.zeros(touch.count, dtype=torch.int64)
    last[touch.owner] = touch.members
    again, indices = rule.evaluate(call, rule.merge(touch, last), touch)
    assert torch.equal(again, values)
    assert torch.equal(indices, op.kept_outputs[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [2, 3])
def test_windows_are_those_of_the_kernel(rank, dtype):
    """On distinct values the index tells the window; in the dtype's own rounding."""
    generator = torch.Generator().manual_seed(3)
    func = getattr(ATEN, f"fractional_max_pool{rank}d")
    for size in range(7, 14):
        space = [size, size + 3, size + 1][:rank]
        kernel, out = [2, 3, 2][:rank], [4, 5, 3][:rank]
        x = torch.randn(3, 2, *space, dtype=dtype, generator=generator)
        # Samples at which a start is about to move, next to random ones.
        edge = torch.arange(6, dtype=dtype).reshape(3, 2, 1) * (out[0] - 1) / (size - 2)
        drawn = torch.rand(3, 2, rank, dtype=dtype, generator=generator)
        for samples in (drawn, (edge % 1).expand(3, 2, rank)):
            values, indices = func(x, kernel, out, samples)
            places = window_places(x, (kernel, out), samples)
            mine = pool_at(x, places, indices.shape)
            assert torch.equal(mine[0], values)
            assert torch.equal(mine[1], indices)


def test_unbatched_and_other_windows():
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    samples = torch.rand(1, 3, 2, dtype=torch.float64)
    values, indices = ATEN.fractional_max_pool2d(x, [2, 2], [3, 4], samples)
    mine = pool_at(x, window_places(x, ([2], [3, 4]), samples), indices.shape)
    assert torch.equal(mine[0], values)
    # Records whose windows do not explain the indices get a hazard, not a verdict.
    _, samples, _, _, op, rule = recorded(2, (6, 7), (2, 2), (3, 3))
    moved = {**op.kept, 0: torch.arange(168.0, dtype=torch.float64).reshape(2, 2, 6, 7)}
    assert rule.find(replace(op, kept=moved)).hazards[Hazard.SEVERAL].numel()


def pool(x, samples):
    return F.fractional_max_pool2d(x.reshape(1, 1, 2, 2), 2, 1, _random_samples=samples)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_verdicts_at_a_tie(dtype):
    samples = torch.full((1, 1, 2), 0.5, dtype=dtype)
    x = torch.ones(4, dtype=dtype, requires_grad=True)
    assert clarke.check(lambda x: pool(x, samples).sum(), (x,)).verdict in GOOD
    # max(x) - max(flipped x) is 0, yet AD follows two different elements.
    report = clarke.check(lambda x: (pool(x, samples) - pool(x.flip(0), samples)).sum(), (x,))
    assert report.gradient[0].abs().sum() > 0
    assert report.verdict is Verdict.NOT_CLARKE
    y = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype, requires_grad=True)
    assert clarke.check(lambda y: pool(y, samples).sum(), (y,)).verdict is Verdict.SMOOTH


def test_verdict_at_a_tie_in_three_dimensions():
    samples = torch.full((1, 1, 3), 0.3, dtype=torch.float64)
    x = torch.zeros(8, dtype=torch.float64, requires_grad=True)

    def three(x):
        cube = F.pad(x.reshape(1, 1, 2, 2, 2), (1, 0, 1, 0, 1, 0))  # out of 1: the last window
        return F.fractional_max_pool3d(cube, 2, 1, _random_samples=samples).sum()

    assert clarke.check(three, (x,)).verdict in GOOD
    assert clarke.check(lambda x: three(x) - three(x.flip(0)), (x,)).verdict is Verdict.NOT_CLARKE


def test_replays_in_another_dtype_keep_the_windows():
    """Samples whose windows float64 would place elsewhere than float32 did."""
    x = torch.arange(162.0).remainder(7).reshape(1, 2, 9, 9)
    kernel, out = [2, 2], [4, 4]
    for numerator in range(1, 7):
        samples = torch.full((1, 2, 2), numerator / 7)
        for nudged in (samples, samples.nextafter(torch.zeros(())), samples.nextafter(samples + 1)):
            single = window_places(x, (kernel, out), nudged)
            if not torch.equal(single, window_places(x, (kernel, out), nudged.double())):
                break
        else:
            continue
        break
    else:
        pytest.fail("no sample for which the rounding counts")
    leaf = x.clone().requires_grad_()
    program = lambda x: ATEN.fractional_max_pool2d(x, kernel, out, nudged)[0].square().sum()  # noqa: E731
    recorder = Recorder(default_registry().keeps)
    with recorder:
        trace = collect_trace(recorder, program(leaf))
    op = next(o for o in trace.ops if "fractional" in o.name)
    call = Call(op.func, (x.double(), kernel, out, nudged.double()), {})
    func, args, kwargs = adapted(op, call, torch.float64)
    assert torch.equal(func(*args, **kwargs)[0].float(), op.func(x, kernel, out, nudged)[0])
    assert not torch.equal(op.func(*call.args)[0].float(), op.func(x, kernel, out, nudged)[0])
    assert clarke.check(program, (leaf,)).verdict is Verdict.SMOOTH  # no window has a tie
