"""What is written into a buffer is known, whenever Python collects its garbage."""

import gc

import pytest
import torch

import clarke


@pytest.mark.parametrize("collects", [False, True])
def test_writes_into_a_buffer_that_has_not_been_read(collects):
    def f(v):
        parts = torch.zeros(2, dtype=torch.float64)
        parts[0] = torch.relu(v[0])
        if collects:
            gc.collect()
        parts[1] = -torch.relu(-v[0])
        if collects:
            gc.collect()
        return parts.sum()  # v itself

    v = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(f, (v,))
    assert found.complete
    assert found.vertices().tolist() == [[1.0]]
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        assert clarke.grad(f, (v,), generator=generator)[0].item() == 1
