"""Fused layers that replays write with their formulas or pieces."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import affine_grid, grid_sample

import clarke
from clarke import Verdict
from clarke.prepare import prepared
from clarke.steering import Program, analyse, selected_gradient
from clarke.steering.adapt import plain_lstm


@pytest.mark.parametrize("reverse", [False, True])
def test_an_lstm_layer_is_its_formula(reverse):
    torch.manual_seed(0)
    shapes = ((5, 2, 3), (16, 3), (16, 4), (16,), (16,), (1, 2, 4), (1, 2, 4))
    args = [torch.randn(s) for s in shapes]
    rest = (reverse, [], 2, 4, 1, True, False, False, True)
    ran = torch.ops.aten.mkldnn_rnn_layer.default(*args, *rest)
    for ours, theirs in zip(plain_lstm(*args, *rest)[:3], ran[:3], strict=True):
        torch.testing.assert_close(ours, theirs.reshape(ours.shape), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_truncated_training_of_an_lstm_is_decided(batch_first, bidirectional):
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, 2, batch_first=batch_first, bidirectional=bidirectional)
    x, state = torch.randn(5, 5, 3), None
    with clarke.audit() as audit:
        for _ in range(3):
            out, state = layer(x, state)
            out.pow(2).mean().backward()
            state = tuple(s.detach() for s in state)
    assert [s.verdict for s in audit.steps] == [Verdict.SMOOTH] * 3


CASES = [
    (dims, mode, padding, corners)
    for dims, mode, padding, corners in itertools.product(
        (2, 3),
        ("bilinear", "nearest", "bicubic"),
        ("zeros", "border", "reflection"),
        (True, False),
    )
    if dims == 2 or mode != "bicubic"
]


@pytest.mark.parametrize(("dims", "mode", "padding", "corners"), CASES)
def test_pieces_have_the_value_and_gradient_of_grid_sample(dims, mode, padding, corners):
    generator = torch.Generator().manual_seed(dims)
    sizes, points = (3, 4, 2)[:dims], (3, 2, 2)[:dims]
    image = torch.randn(2, 2, *sizes, generator=generator, dtype=torch.float64).requires_grad_()
    grid = 4 * torch.rand(2, *points, dims, generator=generator, dtype=torch.float64) - 2
    weight = torch.randn(2, 2, *points, generator=generator, dtype=torch.float64)

    def function(image, grid):
        kind = {"mode": mode, "padding_mode": padding, "align_corners": corners}
        return (weight * grid_sample(image, grid, **kind)).sum()

    with prepared(function, (image, grid.requires_grad_()), None) as run:
        program = Program(analyse(run.trace, run.registry), run.slots)
        value = float(program.run(grad=False).output)
        found = selected_gradient(program)
    assert value == pytest.approx(float(function(image, grid).detach()), abs=1e-10)
    for ours, theirs in zip(found, run.gradient, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def columns(scale, corners):
    image = torch.tensor([0, 0, 1.0, 0, -1, 0, 0], dtype=scale.dtype).repeat(7, 1)[None, None]
    zero = 0 * scale
    rows = torch.stack([scale, zero, zero]), torch.stack([zero, scale, zero])
    grid = affine_grid(torch.stack(rows)[None], (1, 1, 7, 7), align_corners=corners)
    out = grid_sample(image, grid, align_corners=corners, padding_mode="border")
    return out[..., 2].sum() + out[..., 4].sum()


@pytest.mark.slow
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_of_an_image_is_no_place_for_a_slope(dtype, corners):
    scale = torch.ones((), dtype=dtype, requires_grad=True)
    report = clarke.check(lambda s: columns(s, corners), (scale,))
    if abs(float(report.gradient[0])) > 1:
        assert report.verdict is Verdict.NOT_CLARKE
        assert float(report.element[0]) == pytest.approx(0, abs=1e-6)
    else:
        assert report.verdict is not Verdict.NOT_CLARKE


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("dims", [2, 3])
def test_on_grid_lines_the_gradient_is_one_of_those_nearby(dims, padding):
    """Against values: the slope along the direction that `grad` follows is the function's own."""
    generator = torch.Generator().manual_seed(dims)
    image = torch.randn(1, 1, *(3,) * dims, generator=generator, dtype=torch.float64)
    place = torch.randint(-2, 3, (1, *(1,) * (dims - 1), 2, dims), generator=generator)
    grid = place.to(torch.float64).requires_grad_()

    def function(grid):
        return grid_sample(image, grid, padding_mode=padding, align_corners=True).sum()

    (found,) = clarke.grad(function, (grid,))
    direction = torch.randn(
        grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        slope = float(function(grid + 1e-7 * direction) - function(grid)) / 1e-7
    assert float((found * direction).sum()) == pytest.approx(slope, abs=1e-5)
    report = clarke.check(function, (grid,))
    assert report.verdict is not Verdict.NOT_CLARKE or report.certificate.verify()


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_cubic_interpolation_is_smooth_on_grid_lines(padding):
    image = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    grid = torch.tensor([[[[-1 / 3, 1 / 3], [1 / 3, 0.2]]]], dtype=torch.float64).requires_grad_()
    report = clarke.check(
        lambda g: grid_sample(image, g, "bicubic", padding, align_corners=True).sum(), (grid,)
    )
    assert report.verdict is Verdict.SMOOTH


IN_PLACE = {
    "pow_": lambda x: x.pow_(2),
    "pow_ by tensors": lambda x: x.pow_(torch.tensor([2.0, 3.0])),
    "remainder_": lambda x: x.remainder_(0.5),
    "fmod_": lambda x: x.fmod_(0.5),
    "copysign_": lambda x: x.copysign_(-1.0),
    "xlogy_": lambda x: x.xlogy_(torch.tensor([2.0, 2.0])),
    "hypot_": lambda x: x.hypot_(torch.tensor([1.0, 1.0], dtype=torch.float64)),
    "atan2_": lambda x: x.atan2_(torch.ones(2, dtype=torch.float64)),
    "frac_": lambda x: x.frac_(),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_forms_follow_from_functional_ones(name):
    x = torch.tensor([0.7, 1.9], dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: IN_PLACE[name](x.clone()).sum(), (x,))
    assert report.verdict is Verdict.SMOOTH


def test_an_in_place_form_at_a_kink():
    x = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: x.clone().copysign_(-1.0).sum(), (x,))
    assert report.verdict is Verdict.CLARKE
