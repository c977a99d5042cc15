"""Infinity among constants (masks of attention) has no roundings of its own."""

import pytest
import torch
from torch.nn.functional import softmax

import clarke
from clarke import Verdict

MASK = torch.full((4, 4), -torch.inf).triu(1)
ROWS = torch.tensor(
    [[0.3, -0.7, 1.1, 0.0], [0.9, 0.4, -0.2, 0.6], [1.3, -1.1, 0.8, 0.7], [0.1] * 4]
)


def attention(x):
    return (softmax(x @ x.T + MASK.to(x.dtype), -1) @ x).square().sum()


def attention_of_copies(x):
    scores = x @ x.T
    scores += MASK.to(x.dtype)
    return (softmax(scores, -1) @ torch.relu(x)).square().sum()


def fused(x):
    return torch.nn.functional.scaled_dot_product_attention(
        x[None], x[None], x[None], MASK.to(x.dtype)[None]
    ).square().sum()  # fmt: skip


def of_chosen(x):
    return torch.where(MASK == 0, x @ x.T, MASK.to(x.dtype)).logsumexp(-1).sum()


PROGRAMS = [attention, attention_of_copies, fused, of_chosen]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_gradients_that_were_rounded_otherwise_are_right(program, dtype):
    x = ROWS.to(dtype, copy=True).requires_grad_()
    [own] = torch.autograd.grad(program(x), [x])
    rounded = own * (1 + 2 * torch.finfo(dtype).eps)
    rounded[0, 0] += 3 * torch.finfo(dtype).eps * own.abs().max()
    report = clarke.check(program, (x,), gradient=(rounded,))
    assert report.verdict in {Verdict.SMOOTH, Verdict.BOULIGAND}, report.reason


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_others_are_not(program):
    x = ROWS.clone().requires_grad_()
    [own] = torch.autograd.grad(program(x), [x])
    own[0, 0] += 1e-3 * own.abs().max()
    assert clarke.check(program, (x,), gradient=(own,)).verdict is Verdict.NOT_CLARKE
