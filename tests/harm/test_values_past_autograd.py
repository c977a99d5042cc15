"""Values that reach the result past autograd are noticed in every floating point type."""

import ctypes

import pytest
import torch
from torch import nn

import clarke
from clarke import CaptureError, Verdict

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def inference(x):
    with torch.inference_mode():
        inner = torch.relu(x).sum()
    return x.sum() * float(inner)


def dlpack(x):
    other = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x.detach()))
    return (x * other).sum()


def pointer(x):
    memory = (ctypes.c_char * (x.numel() * x.element_size())).from_address(x.data_ptr())
    return (x * torch.frombuffer(bytearray(bytes(memory)), dtype=x.dtype)).sum()


def storage(x):
    other = torch.empty(0, dtype=x.dtype).set_(x.detach().untyped_storage().clone())
    return (x * other).sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("program", [inference, dlpack, pointer, storage])
def test_noticed(program, dtype):
    x = torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    report = clarke.check(program, (x,))
    assert report.verdict is Verdict.UNDECIDED
    says = "out of clarke's sight" if dtype == torch.float64 else "autograd does not see"
    assert says in report.reason


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_autograd_sees_stays_decided(dtype):
    x = torch.tensor([1.0, -2.0, 0.5], dtype=dtype, requires_grad=True)
    for program in (
        lambda x: torch.relu(x).sum() * x.max(),
        lambda x: (x.softmax(0) * torch.arange(3)).sum(),
        lambda x: (x.exp() - x.abs()).prod(),
        lambda x: (x / x.norm()).sum(),
    ):
        assert clarke.check(program, (x,)).verdict is Verdict.SMOOTH


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_an_embedding_that_rewrites_its_rows(dtype):
    rows = nn.Embedding(3, 2, max_norm=1.0, dtype=dtype)
    with torch.no_grad():
        rows.weight.fill_(2.0)
    report = clarke.check(lambda: rows(torch.tensor([0, 1])).square().sum())
    assert report.verdict is Verdict.UNDECIDED
    assert rows.weight.tolist() == [[2.0, 2.0]] * 3
    with pytest.raises(CaptureError, match=r"rewrites a parameter of its own at Embedding"):
        clarke.explain(rows, torch.tensor([0, 1]))
