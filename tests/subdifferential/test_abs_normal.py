"""The abs-normal form there and back: the same set and the same values as the program."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import clarke

ROWS = torch.tensor([[1.0, -2.0], [1.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
FUNCTIONS = {
    "maximum": lambda v: torch.maximum(v[0], 2 * v[1]),
    "minimum": lambda v: torch.minimum(v[0], 2 * v[1]) - v[1],
    "clamp": lambda v: v.clamp(0, 1).sum(),
    "clamp between tensors": lambda v: torch.clamp(v, min=v.flip(0) * 0.5).sum(),
    "relu": lambda v: F.relu(ROWS @ v).sum(),
    "leaky relu": lambda v: F.leaky_relu(ROWS @ v, 0.25) @ torch.tensor([1.0, -1.0, 3.0]).double(),
    "hardtanh": lambda v: F.hardtanh(ROWS @ v, 0.0, 2.0).sum(),
    "two layers": lambda v: F.relu(F.leaky_relu(ROWS @ v, 0.5) @ ROWS - v).sum(),
    "three levels": lambda v: (v[0] - (v[1] - v[0].abs()).abs()).abs(),
    "maxima of maxima": lambda v: torch.maximum(torch.maximum(v[0], v[1]), -v[0] - v[1]),
    "median of three by pairs": lambda v: torch.maximum(
        torch.minimum(v[0], v[1]), torch.minimum(torch.maximum(v[0], v[1]), 0 * v[0])
    ),
    "softshrink": lambda v: F.softshrink(v + 1, 1.0).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_there_and_back(name):
    function = FUNCTIONS[name]
    v = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    there = clarke.subdifferential(function, (v,))
    form = there.abs_normal_form()
    back = clarke.subdifferential(form, (v,))
    assert there.complete
    assert back.complete
    mine, own = (np.array(sorted(s.vertices().round(decimals=9).tolist())) for s in (there, back))
    assert np.abs(mine - own).max() < 1e-8
    assert np.abs(np.triu(form.L)).max(initial=0.0) == 0
    generator = np.random.default_rng(0)
    for _ in range(8):
        step = 2.0**-10 * generator.integers(-4, 5, 2)
        value = float(function(torch.from_numpy(step)))
        assert abs(form.value(step) - value) < 1e-12
        assert abs(float(form(torch.from_numpy(step))) - value) < 1e-12


def test_what_has_more_pieces_is_refused():
    v = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(clarke.UnsupportedError, match="maxima of two"):
        clarke.subdifferential(lambda v: v.amax(), (v,)).abs_normal_form()
