"""An entry counts by itself, however large others are and however coarse the type."""

import pytest
import torch

import clarke
from clarke.prepare import prepared
from clarke.steering import Pieces, Program, analyse, natural_gradient, selected_gradient
from clarke.verdict import Verdict
from reference.leaves import leaf as point

POSITIVE = (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE)


def cancelling(x):
    """The function x, of which AD says slope 0 at 0."""
    return torch.relu(x) - torch.relu(-x)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(1e8, torch.float64), (1e12, torch.float64), (2e7, torch.float32), (1e4, torch.float16)],
)
def test_a_wrong_entry_beside_a_large_right_one(size, dtype):
    report = clarke.check(lambda v: size * v[0] + cancelling(v[1]), (point(1.0, 0.0, dtype=dtype),))
    assert report.gradient[0][1].item() == 0
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()
    assert report.element[0].tolist() == pytest.approx([size, 1.0], rel=1e-3)


@pytest.mark.parametrize("size", [1e-10, 1e-3, 1e10])
def test_a_wrong_tensor_beside_another(size):
    report = clarke.check(
        lambda a, b: size * a.sum() + cancelling(b).sum(), (point(1.0), point(0.0))
    )
    assert report.verdict is Verdict.NOT_CLARKE
    assert [e.item() for e in report.element] == pytest.approx([size, 1.0])


def test_membership_beside_a_large_entry():
    found = clarke.subdifferential(lambda v: 1e10 * v[0] + cancelling(v[1]), (point(1.0, 0.0),))
    for wrong in (-50.0, 0.0, 0.999, 1.0001):
        outside = found.contains(torch.tensor([1e10, wrong], dtype=torch.float64))
        assert outside.inside is False
        assert outside.verify()
    inside = found.contains(torch.tensor([1e10, 1.0], dtype=torch.float64))
    assert inside.inside
    assert inside.verify()
    assert found.contains(torch.tensor([1.0001e10, 1.0], dtype=torch.float64)).inside is False


def test_vertices_beside_a_large_entry():
    found = clarke.subdifferential(
        lambda v: 1e10 * v[0] + v[1].abs() + 1e-6 * v[2].abs(), (point(1.0, 0.0, 0.0),)
    )
    corners = {(1e10, a, b) for a in (-1.0, 1.0) for b in (-1e-6, 1e-6)}
    assert {tuple(v) for v in found.vertices().tolist()} == corners
    assert found.contains(torch.tensor([1e10, 0.3, 5e-7], dtype=torch.float64))
    assert not found.contains(torch.tensor([1e10, 0.3, 2e-6], dtype=torch.float64))


def test_candidates_that_share_a_large_slope():
    found = clarke.subdifferential(
        lambda v: torch.maximum(1e12 * v[0] + v[1], 1e12 * v[0] - v[1]), (point(0.0, 0.0),)
    )
    assert sorted(found.vertices().tolist()) == [[1e12, -1.0], [1e12, 1.0]]


def hooked(change):
    def program(x, weights):
        y = x * 1
        y.register_hook(change)
        return (y * weights).sum()

    return program


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.25, 0.8, 1.125])
def test_a_gradient_that_a_hook_stretches_is_not_right(dtype, factor):
    weights = torch.tensor([1.0, -2.0], dtype=dtype)
    program = hooked(lambda g: g * factor)
    report = clarke.check(lambda x: program(x, weights), (point(1.0, 2.0, dtype=dtype),))
    assert report.verdict not in POSITIVE


@pytest.mark.parametrize(
    ("dtype", "large"),
    [
        (torch.bfloat16, 4.0),
        (torch.float16, 4.0),
        (torch.float32, 2500.0),
        (torch.float32, 1e6),
        (torch.float64, 2e7),
        (torch.float64, 1e12),
    ],
)
def test_an_entry_that_a_hook_takes_away_is_missed(dtype, large):
    weights = torch.tensor([large, 1.0], dtype=dtype)
    keep = torch.tensor([1.0, 0.0], dtype=dtype)
    program = hooked(lambda g: g * keep)
    report = clarke.check(lambda x: program(x, weights), (point(1.0, 2.0, dtype=dtype),))
    assert report.verdict not in POSITIVE


def stretched(pieces, slope):
    class Stretched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return pieces(x)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 1.2 * grad * slope(x)

    return Stretched


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_registered_function_whose_backward_is_a_fifth_too_large(dtype):
    square = stretched(lambda x: x * x, lambda x: 2 * x)
    clarke.register_function(square, pieces=lambda x: x * x)
    report = clarke.check(lambda x: square.apply(x).sum(), (point(1.5, 2.0, dtype=dtype),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].tolist() == pytest.approx([3.0, 4.0])
    ramp = stretched(torch.relu, lambda x: (x > 0).to(x.dtype))
    clarke.register_function(ramp, pieces=lambda x: (0 * x, x), split=lambda x: x)
    report = clarke.check(lambda x: ramp.apply(x).sum(), (point(1.5, 0.0, dtype=dtype),))
    assert report.verdict is Verdict.NOT_CLARKE


def test_formulas_that_are_wrong_beside_a_large_right_entry():
    matrix = torch.tensor([[1.0, 2.0], [0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    report = clarke.check(
        lambda a, c: torch.linalg.eigvalsh(a)[0] + 1e8 * c.sum(), (matrix, point(1.0))
    )
    assert report.verdict not in POSITIVE
    angle = torch.tensor([0.3], dtype=torch.float64)
    for size in (1.0, 1e9):
        report = clarke.check(
            lambda r, c, size=size: torch.polar(r, angle).abs().sum() + size * c.sum(),
            (point(-1.0), point(1.0)),
        )
        assert report.verdict not in POSITIVE


def test_a_constant_that_a_kernel_rounds_is_rounding_there_only():
    right = clarke.check(lambda x: torch.nn.functional.hardsigmoid(x).sum(), (point(0.3, 1.0),))
    assert right.verdict is Verdict.SMOOTH

    def off(x):
        y = x * 1
        y.register_hook(lambda g: g * (1 + 1e-8))
        return y.sum()

    assert clarke.check(off, (point(0.3, 1.0),)).verdict not in POSITIVE


def additions_one_by_one(dtype):
    """Torch adds up 4096 ones for one row, in half precision one by one: 256 in bfloat16."""
    table = torch.zeros(2, 1, dtype=dtype, requires_grad=True)
    index = torch.zeros(4096, dtype=torch.int64)
    return clarke.check(lambda t: t[index].float().sum(), (table,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_rounding_has_eaten_up_is_neither_right_nor_wrong(dtype):
    report = additions_one_by_one(dtype)
    assert report.gradient[0][0].item() != 4096
    assert report.verdict is Verdict.UNDECIDED
    assert "adds up 4096 terms of its gradient one after the other" in report.reason


def test_the_same_sum_in_single_precision_is_right():
    assert additions_one_by_one(torch.float32).verdict is Verdict.SMOOTH


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.LSTM(6, 8, batch_first=True)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def network(kind):
    torch.manual_seed(0)
    nn = torch.nn
    if kind == "recurrent":
        return Recurrent(), torch.randn(6, 8, 6)
    if kind == "convolution":
        model = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        )
        return model, torch.randn(16, 3, 12, 12)
    if kind == "transformer":
        model = nn.Sequential(
            nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True),
            nn.Flatten(),
            nn.Linear(32 * 6, 5),
        )
        return model, torch.randn(8, 6, 32)
    layers = [m for _ in range(6) for m in (nn.Linear(24, 24), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(24, 5)), torch.randn(32, 24)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["convolution", "transformer", "layers", "recurrent"])
def test_right_gradients_of_networks_stay_decided(kind, dtype):
    model, inputs = network(kind)
    model, inputs = model.to(dtype), inputs.to(dtype)
    target = torch.arange(len(inputs)) % 5

    def loss():
        return torch.nn.functional.cross_entropy(model(inputs), target)

    parameters = list(model.parameters())
    assert clarke.check(loss, (), wrt=parameters).verdict in POSITIVE
    if kind == "convolution":  # at its kinks every selection would be gone through
        return

    def off():
        value = loss()
        value.register_hook(lambda g: g * 1.25)
        return value * 1

    assert clarke.check(off, (), wrt=parameters).verdict not in POSITIVE


def test_recorded_pieces_are_held_where_float64_would_take_others():
    model, inputs = network("layers")
    model, inputs = model.bfloat16(), inputs.bfloat16()
    parameters = list(model.parameters())
    with prepared(lambda: model(inputs).float().pow(2).sum(), (), parameters) as run:
        program = Program(analyse(run.trace, run.registry), run.slots)
        own, held, natural = (
            selected_gradient(program),
            natural_gradient(program, pieces=Pieces.HELD),
            natural_gradient(program),
        )
    assert all(torch.equal(a, b) for a, b in zip(own, held, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(own, natural, strict=True))


def test_a_bias_in_front_of_a_normalisation_is_right_though_all_of_it_is_rounding():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU())
    inputs = torch.randn(64, 4)
    bias = model[0].bias
    report = clarke.check(lambda: model(inputs).pow(2).sum(), (), wrt=[bias])
    assert report.verdict in POSITIVE
