"""Augmentation: repeatable, in range, on the 8-bit grid, and a map of pixels of the same image."""

import torch

from clarke.experiments.augment import augment, jitter, normalise


def batch(n=6):
    return torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def test_the_same_generator_gives_the_same_images():
    first, second, other = (
        augment(batch(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_values_stay_on_the_grid_of_8_bits():
    found = augment(batch(), torch.Generator().manual_seed(1))
    grid = (found * 0.5 + 0.5) * 255
    assert found.dtype == torch.float32
    assert float(found.min()) >= -1
    assert float(found.max()) <= 1
    assert float((grid - grid.round()).abs().max()) < 1e-3


def test_geometry_moves_pixels_and_invents_none():
    pixels = torch.zeros(8, 1, 32, 32, dtype=torch.uint8)
    pixels[:, :, 10:22, 6:12] = 200
    found = augment(pixels, torch.Generator().manual_seed(3))
    for image in found:
        values = image.unique()
        assert len(values) == 2  # black and one jittered grey
        share = float((image > values[0]).float().mean())
        assert 0.4 * 72 / 1024 < share < 2.5 * 72 / 1024  # scale 0.8 to 1.2


def test_half_of_the_images_are_flipped():
    pixels = torch.zeros(200, 1, 32, 32, dtype=torch.uint8)
    pixels[:, :, 8:24, 4:10] = 255
    found = augment(pixels, torch.Generator().manual_seed(4))
    left = (found[..., :16].mean((1, 2, 3)) > found[..., 16:].mean((1, 2, 3))).float().mean()
    assert 0.35 < float(left) < 0.65


def test_jitter_keeps_black_and_grey_levels_of_grey_images():
    grey = torch.full((4, 1, 2, 2), 100 / 255)
    grey[:, :, 0, 0] = 0
    found = jitter(grey, torch.Generator().manual_seed(0))
    assert torch.equal(found[:, :, 0, 0], torch.zeros(4, 1))
    ratio = found[:, :, 1, 1] / (100 / 255)
    assert float(ratio.min()) > 0.79
    assert float(ratio.max()) < 1.21


def test_normalise_maps_bytes_to_minus_one_and_one():
    found = normalise(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    assert found.flatten().tolist() == [-1.0, 1.0]
