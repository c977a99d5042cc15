"""Custom Functions that write through `.data` into memory that has been read before, as solvers do.

Autograd's version counters do not see such a write; a replay that wrote into one memory as well
would have overwritten what its own graph has saved.
"""

import random

import pytest
import torch

import clarke
from clarke.verdict import Verdict


class Assign(torch.autograd.Function):
    """Writes a column of a table past the version counter, and returns the table."""

    @staticmethod
    def forward(ctx, table, value, column):
        ctx.column = column
        table.data[..., column] = value
        return table

    @staticmethod
    def backward(ctx, grad):
        return grad, grad[..., ctx.column], None


def assigned(x, stages, assign=Assign.apply):
    """A solver's steps: every stage reads the columns that have been written so far."""
    table = torch.zeros(len(x), len(stages) + 1, dtype=x.dtype)
    table = assign(table, x, 0)
    for i, stage in enumerate(stages):
        read = x + (table[..., : i + 1] * x[0]).sum(-1)
        table = assign(table, stage(read), i + 1)
    return (table * torch.arange(1.0, len(stages) + 2)).sum() * x[-1].cos()


def in_columns(table, value, column):
    """The same without memory: a new table for each column."""
    parts = list(table.unbind(-1))
    parts[column] = value
    return torch.stack(parts, -1)


def leaf(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


STAGES = [torch.sin, torch.abs, torch.relu, torch.tanh, lambda x: x.flip(0), lambda x: -x]


def test_columns_that_were_read_before_others_are_written():
    report = clarke.check(lambda x: assigned(x, [torch.sin, torch.abs]), (leaf(0.3, 0.7),))
    assert report.verdict is Verdict.SMOOTH
    report = clarke.check(lambda x: assigned(x, [torch.relu]), (leaf(0.0, 0.0),))
    assert report.correct
    assert report.certificate.verify()


@pytest.mark.parametrize("seed", range(6))
def test_the_verdict_is_that_of_the_program_without_memory(seed):
    rng = random.Random(seed)  # noqa: S311 - no secrets
    stages = rng.choices(STAGES, k=rng.randint(1, 3))
    point = [rng.choice([0.0, 0.0, 0.5, -1.0]) for _ in range(2)]
    in_memory = clarke.check(lambda x: assigned(x, stages), (leaf(*point),), seconds=60)
    plain = clarke.check(lambda x: assigned(x, stages, in_columns), (leaf(*point),), seconds=60)
    assert (in_memory.correct, plain.correct).count(None) in (0, 2)
    assert in_memory.correct == plain.correct
    assert torch.allclose(in_memory.gradient[0], plain.gradient[0])


def test_a_column_that_is_overwritten_keeps_no_gradient():
    def twice(x):
        table = Assign.apply(torch.zeros(2, 2, dtype=x.dtype), x, 0)
        return Assign.apply(table, 3 * x, 0).sum()  # its backward still credits the first

    report = clarke.check(twice, (leaf(0.3, 0.7),))
    assert report.gradient[0].tolist() == [4, 4]
    assert report.correct is not True


def test_numbers_read_while_gradients_are_off_do_not_end_the_call():
    @torch.no_grad()
    def next_step(step, error):
        return step * (0.9 / error.abs() ** 0.5).clamp(max=2.0)

    def adaptive(y):
        step = y.abs().max() * 0.1
        for _ in range(2):
            if not torch.isfinite(step):
                step = torch.ones((), dtype=y.dtype)
            y = y + torch.tanh(y) * step
            step = next_step(step, (torch.tanh(y) * step).norm())
        return y.sum()

    report = clarke.check(adaptive, (leaf(0.3, 0.7),), seconds=60)
    assert report.verdict is Verdict.SURROGATE


class Toeplitz(torch.autograd.Function):
    """A product by way of buffers of its own, filled part by part."""

    @staticmethod
    def forward(ctx, column, vector):
        ctx.save_for_backward(column, vector)
        n = len(column)
        circle, padded = torch.zeros(2, 2 * n - 1, dtype=column.dtype)
        circle[:n] = column
        circle[n:] = column[1:].flip(0)
        padded[:n] = vector
        return torch.fft.ifft(torch.fft.fft(circle) * torch.fft.fft(padded)).real[:n]

    @staticmethod
    def backward(ctx, grad):
        column, vector = ctx.saved_tensors
        place = torch.arange(len(column))
        apart = (place[:, None] - place).abs()
        sums = [grad @ (apart == k).to(grad) @ vector for k in place]
        return torch.stack(sums), column[apart] @ grad


class Doubled(Toeplitz):
    """The same with twice the slope in its first argument."""

    @staticmethod
    def backward(ctx, grad):
        first, second = Toeplitz.backward(ctx, grad)
        return 2 * first, second


@pytest.mark.parametrize(
    ("function", "verdict"), [(Toeplitz, Verdict.SMOOTH), (Doubled, Verdict.NOT_CLARKE)]
)
def test_what_a_forward_computes_in_buffers_of_its_own(function, verdict):
    weights = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    point = leaf(1.0, 0.5, 0.2), leaf(0.3, 0.1, -0.7)
    report = clarke.check(lambda c, v: (function.apply(c, v) * weights).sum(), point)
    assert report.verdict is verdict
    if verdict is Verdict.NOT_CLARKE:
        assert "Doubled" in report.reason


def test_a_buffer_that_outlives_the_forward_is_a_constant_for_what_comes():
    buffer = torch.zeros(3, dtype=torch.float64)

    class Counting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            buffer.copy_(2 * x)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    report = clarke.check(lambda x: (Counting.apply(x) * buffer).sum(), (leaf(0.3, 0.1, -0.7),))
    assert report.verdict in (Verdict.SURROGATE, Verdict.UNDECIDED)
