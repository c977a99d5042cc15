"""Kinks with one switching function are one kink, and kinks that lead nowhere are none."""

import pytest
import torch
from torch.nn.functional import relu

import clarke
from clarke import Verdict


def point(*values):
    return (torch.tensor(values, dtype=torch.float64, requires_grad=True),)


def curved(count):
    """Twice as many kinks as `count`, all at the zeros of one sine."""

    def loss(x):
        y = torch.sin(x)
        up = sum(relu(y * i) * i for i in range(1, count + 1))
        return (up - sum(relu(-y * i) * 0.5 for i in range(1, count + 1))).sum()

    return loss


def slopes(count):
    squares = sum(i * i for i in range(1, count + 1))
    halves = sum(i * 0.5 for i in range(1, count + 1))
    return sorted([float(squares), halves])


@pytest.mark.parametrize("count", [2, 8])
def test_all_kinks_of_one_sine_switch_together(count):
    found = clarke.subdifferential(curved(count), point(0.0))
    assert found.complete
    assert sorted(found.vertices().flatten().tolist()) == pytest.approx(slopes(count))


def test_two_sines_are_two_kinks():
    def loss(x):
        y, z = torch.sin(x[0]), torch.sin(x[1])
        return relu(y) - relu(-2 * y) * 0.5 + relu(3 * z) - relu(-z)

    found = clarke.subdifferential(loss, point(0.0, 0.0))
    assert found.complete
    assert {tuple(round(x, 9) for x in v) for v in found.found().tolist()} == {(1, 1), (1, 3)}


def test_almost_one_function_is_not_one():
    """x and x + x**2 agree to first order, and differ beside the point: nothing is excluded."""

    def loss(x):
        return (relu(x) - relu(-x - x * x)).sum()

    found = clarke.subdifferential(loss, point(0.0))
    assert {1.0} <= set(found.found().flatten().tolist())
    assert clarke.check(loss, point(0.0)).correct is not True


@pytest.mark.parametrize(("width", "batch", "depth"), [(4, 1, 1), (16, 8, 1), (8, 4, 2)])
def test_a_leaky_relu_by_hand_in_a_network_of_zeros(width, batch, depth):
    torch.manual_seed(0)
    x, out = torch.randn(batch, 4), torch.randn(width)
    layers = [
        p.requires_grad_()
        for i in range(depth)
        for p in (torch.zeros(width, width if i else 4), torch.zeros(width))
    ]

    def loss(*parameters):
        h = x
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            y = h @ weight.T + bias
            h = relu(y) - 0.1 * relu(-y)
        return (h @ out).sum()

    report = clarke.check(loss, tuple(layers))
    assert report.verdict is Verdict.NOT_CLARKE  # its slope 0 is not in [0.1, 1]
    assert report.certificate.verify()


def test_what_leads_to_an_idle_tie_is_idle():
    """The comparison fails all around 0, so that neither the maximum nor its ReLUs matter."""

    def loss(x):
        v = torch.stack([-2 * x[0], x[0]])
        chosen = relu(v).max() - relu(-v).min()
        return torch.where((v <= 0).sum() >= 2, chosen, 0 * x[0]) - relu(2 * x[0])

    report = clarke.check(loss, point(0.0, 0.0))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()
