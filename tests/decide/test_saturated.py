"""Derivatives computed from rounded results: saturated functions in every type, beside kinks."""

import pytest
import torch
from torch.nn import functional

import clarke
from clarke import Verdict

RIGHT = {Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE}
TWO = torch.tensor([1.0, 2.0])
FUNCTIONS = {
    "tanh": torch.tanh,
    "tanh in place": lambda v: (v * 1).tanh_(),
    "sigmoid": torch.sigmoid,
    "expm1": lambda v: torch.expm1(-v),
    "elu in place": lambda v: functional.elu(-v * 1, inplace=True),
    "gelu": lambda v: functional.gelu(-v),
    "gelu by tanh": lambda v: functional.gelu(-v, approximate="tanh"),
    "silu": lambda v: functional.silu(-v),
    "mish": lambda v: functional.mish(-v),
    "elu": lambda v: functional.elu(-v),
    "selu": lambda v: functional.selu(-v * 2),
    "celu": lambda v: functional.celu(-v, 0.5),
    "softmax": lambda v: functional.softmax(v, 0) * TWO.to(v),
    "log_softmax": lambda v: functional.log_softmax(v, 0)[:1],
    "cross entropy": lambda v: functional.cross_entropy(v[None], torch.tensor([0])),
    "logits": lambda v: functional.binary_cross_entropy_with_logits(v, torch.ones(2).to(v)),
    "layer norm": lambda v: (
        functional.layer_norm(torch.cat([v, v * v]), (4,)) * TWO.repeat(2).to(v)
    ),
    "group norm": lambda v: functional.group_norm(torch.cat([v, v * v])[None], 2)[0, :2],
    "batch norm": lambda v: functional.batch_norm(
        torch.stack([v, v * v, -v]), None, None, training=True
    )[0],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.3, 5.0, 9.0, 12.0, 30.0])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_saturates_is_never_wrong(name, size, dtype):
    """Right where digits are left; undecided where bfloat16 leaves none; never called wrong."""
    v = torch.tensor([size, 2.0], dtype=dtype, requires_grad=True)
    w = torch.zeros(2, dtype=dtype, requires_grad=True)
    smooth = clarke.check(lambda: FUNCTIONS[name](v).sum()).verdict
    beside = clarke.check(lambda: torch.relu(w).sum() + FUNCTIONS[name](v).sum()).verdict
    assert {smooth, beside} & {Verdict.NOT_CLARKE} == set()
    if dtype is torch.float64 or (dtype is torch.float32 and "norm" not in name):
        assert {smooth, beside} <= RIGHT, name


@pytest.mark.parametrize("factor", [0.9, 1.001])
def test_another_slope_is_still_found(factor):
    v = torch.tensor([3.0, 2.0], dtype=torch.float32, requires_grad=True)

    def loss():
        y = torch.tanh(v)
        if y.requires_grad:
            y.register_hook(lambda g: g * factor)
        return y.sum()

    assert clarke.check(loss).verdict not in RIGHT
