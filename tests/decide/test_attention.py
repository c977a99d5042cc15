"""Fused attention whose weights are 0 and 1: its kernels leave roundings where formulas leave 0.

How many they leave differs between versions of torch: 2.14 on a processor with AVX leaves most.
"""

import pytest
import torch
from torch.nn import functional

import clarke

attention = functional.scaled_dot_product_attention


def program(seed):
    torch.manual_seed(seed)
    dtype = (torch.float32, torch.float64)[seed % 2]
    rows, width = ((2, 3), (5, 8), (7, 16))[seed % 3]
    v = (torch.randn(rows, width) * (1, 5, 20)[seed // 3 % 3]).to(dtype).requires_grad_()
    w = torch.zeros(2, dtype=dtype, requires_grad=True)

    def loss():
        y = attention(v[None], v[None] * 2, v[None], is_causal=seed % 7 == 1)[0]
        if seed % 4 == 1:
            y = y + v
        if seed % 4 == 2:
            y = functional.gelu(y)
        if seed % 4 == 3:
            y = functional.softplus(functional.gelu(y.logsumexp(-1, keepdim=True) + y))
        return (y.square().mean() if seed % 5 else y.sum()) + torch.relu(w).sum()

    return loss


@pytest.mark.parametrize("seed", range(12))
def test_a_kink_elsewhere_decides(seed):
    report = clarke.check(program(seed))
    assert report.correct
    assert report.certificate.verify()
