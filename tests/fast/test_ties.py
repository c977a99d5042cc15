"""Tied windows, counted in whole-array passes, against counting them one kernel place at a time."""

import numpy as np
import pytest
import torch

from clarke.fast.geometry import Windows
from clarke.fast.scratch import Scratch
from clarke.fast.ties import find_ties

GEOMETRIES = [  # kernel, stride, padding, dilation
    ((2, 2), (2, 2), (0, 0), (1, 1)),
    ((3, 3), (2, 2), (1, 1), (1, 1)),
    ((3, 3), (2, 2), (0, 0), (1, 1)),
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((2, 2), (1, 1), (0, 0), (1, 1)),
    ((2, 2), (2, 2), (1, 1), (1, 1)),
    ((3, 3), (3, 3), (0, 0), (1, 1)),
    ((2, 2), (2, 2), (0, 0), (2, 2)),
    ((3, 3), (2, 2), (1, 1), (2, 2)),
    ((3, 2), (2, 2), (1, 0), (1, 1)),
    ((3, 2), (1, 3), (1, 0), (2, 1)),
]
SPACES = [(4, 4), (6, 8), (5, 7), (2, 2), (8, 2), (4, 6), (16, 16)]


def counted(values, peaks, windows):
    """(tied, tied at zero): flat positions by the definition."""
    count = np.zeros(peaks.shape, dtype=int)
    for i, j in windows.offsets():
        (y, above), (x, left) = windows.cut(0, i), windows.cut(1, j)
        count[:, :, y, x] += values[:, :, above, left] == peaks[:, :, y, x]
    return np.flatnonzero(count > 1), int(np.count_nonzero((count > 1) & (peaks == 0)))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_ties_are_those_of_the_definition(geometry, space, dtype, rectified, ceil_mode):
    kernel, stride, padding, dilation = geometry
    random = np.random.default_rng(0)
    scratch = Scratch()
    for channels, low in ((1, -2), (3, -2), (3, -60)):
        drawn = random.integers(low, 5, (5, channels, *space))
        x = torch.from_numpy(drawn).to(dtype)
        x = x.clamp(min=0) if rectified else x
        try:
            y = torch.nn.functional.max_pool2d(
                x, kernel, stride, padding, dilation, ceil_mode=ceil_mode
            )
        except RuntimeError:
            pytest.skip("torch finds no window that fits")
        windows = Windows(kernel, stride, padding, dilation, space, tuple(y.shape[2:]))
        values, peaks = x.numpy(), np.ascontiguousarray(y.numpy())
        found = find_ties(values, peaks, windows, scratch, positive=rectified)
        tied, at_zero = counted(values, peaks, windows)
        if rectified:
            tied = tied[peaks.reshape(-1)[tied] > 0]
            assert found.zero_ties == at_zero
        assert np.array_equal(found.tied, tied)
        assert found.windows == peaks.size


@pytest.mark.parametrize("geometry", GEOMETRIES[:2], ids=str)
def test_many_images_are_looked_at_a_few_at_a_time(geometry, monkeypatch):
    monkeypatch.setattr("clarke.fast.ties._CHUNK", 200)
    kernel, stride, padding, dilation = geometry
    x = torch.from_numpy(np.random.default_rng(1).integers(0, 9, (13, 2, 6, 8))).float()
    y = torch.nn.functional.max_pool2d(x, kernel, stride, padding)
    windows = Windows(kernel, stride, padding, dilation, (6, 8), tuple(y.shape[2:]))
    found = find_ties(x.numpy(), y.numpy(), windows, Scratch(), positive=False)
    assert np.array_equal(found.tied, counted(x.numpy(), y.numpy(), windows)[0])


def test_not_a_number_ties_with_nothing():
    x = torch.tensor([[[[torch.nan, torch.nan], [1.0, 1.0]]]])
    y = torch.nn.functional.max_pool2d(x, 2)
    windows = Windows((2, 2), (2, 2), (0, 0), (1, 1), (2, 2), (1, 1))
    assert find_ties(x.numpy(), y.numpy(), windows, Scratch(), positive=False).tied.size == 0
