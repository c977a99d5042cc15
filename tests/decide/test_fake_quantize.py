"""Quantisation-aware training: PyTorch's own straight-through rounding is a surrogate, by name."""

import pytest
import torch

import clarke
from clarke.verdict import Verdict


def _by_tensor(w):
    return torch.fake_quantize_per_tensor_affine(w, 0.1, 0, -128, 127)


def _by_tensor_of_scales(w):
    scale, zero = torch.tensor([0.1]), torch.zeros(1, dtype=torch.int32)
    return torch.fake_quantize_per_tensor_affine(w, scale, zero, -128, 127)


def _by_channel(w):
    zero = torch.zeros(3, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(w, torch.full((3,), 0.1), zero, 0, -128, 127)


@pytest.mark.parametrize("quantize", [_by_tensor, _by_tensor_of_scales, _by_channel])
def test_fake_quantization_is_a_surrogate(quantize):
    torch.manual_seed(0)
    w = torch.randn(3, 4, requires_grad=True)
    report = clarke.check(lambda w: quantize(w).pow(2).sum(), (w,))
    assert report.verdict is Verdict.SURROGATE
    assert "straight through" in report.reason


@pytest.mark.parametrize("quantize", [_by_tensor, _by_tensor_of_scales, _by_channel])
def test_of_a_constant_it_is_one(quantize):
    torch.manual_seed(0)
    w, x = torch.randn(3, 4), torch.randn(4, requires_grad=True)
    report = clarke.check(lambda x: (quantize(w) @ x).pow(2).sum(), (x,))
    assert report.verdict is Verdict.SMOOTH


def test_every_step_of_a_training_is_one():
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    with clarke.audit(seconds=None) as audit:
        for _ in range(3):
            out = torch.nn.functional.linear(
                torch.randn(5, 4), _by_tensor(layer.weight), layer.bias
            )
            optimizer.zero_grad()
            out.relu().sum().backward()
            optimizer.step()
    assert [s.verdict for s in audit.steps] == [Verdict.SURROGATE] * 3
