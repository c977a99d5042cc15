"""The verdict that each program deserves, with its proof and the operation it names."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import clarke
from clarke import Verdict
from clarke.kinks import default_registry
from clarke.kinks.regions import RegionRule
from clarke.kinks.singular import SingularRule
from reference.leaves import leaf


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_two_relus_agree_on_the_left():
    report = clarke.check(lambda w: (torch.relu(w) - torch.relu(2 * w)).sum(), (leaf(0.0),))
    assert report.verdict is Verdict.BOULIGAND
    (witness,) = report.certificate.witnesses
    assert witness.direction[0].item() < 0
    assert report.certificate.verify()


def test_abs_at_zero_is_a_mixture():
    report = clarke.check(lambda w: w.abs().sum(), (leaf(0.0),))
    assert report.verdict is Verdict.CLARKE
    found = sorted(w.gradient[0].item() for w in report.certificate.witnesses)
    assert found == [-1, 1]
    assert report.certificate.weights == pytest.approx((0.5, 0.5))
    assert report.certificate.verify()


def test_relu_away_from_its_kink():
    report = clarke.check(lambda w: torch.relu(w).sum(), (leaf(1.0),))
    assert report.verdict is Verdict.SMOOTH
    assert report.touched == 0


def test_a_smooth_network_has_no_kinks():
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1))
    report = clarke.check(lambda: net(torch.randn(5, 3)).square().mean())
    assert report.verdict is Verdict.SMOOTH
    assert report.kinks == ()


def test_a_relu_network_at_a_generic_point():
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    report = clarke.check(lambda: net(torch.randn(5, 3)).square().mean())
    assert report.verdict is Verdict.SMOOTH
    assert report.touched == 0


# --- what cannot be judged, by name and line -----------------------------------------------------


@torch.library.custom_op("clarke_test::half_wave", mutates_args=())
def half_wave(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=0)


half_wave.register_fake(torch.empty_like)
half_wave.register_autograd(
    lambda ctx, grad: grad * (ctx.saved_tensors[0] > 0),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@pytest.fixture
def registered():
    """Rules for custom operators, forgotten after the test."""
    registry = default_registry()
    before = dict(registry._rules)
    yield clarke.register_kink
    registry._rules.clear()
    registry._rules.update(before)
    registry._known.clear()


def wave(x):
    return half_wave(x * 2).sum()  # half wave


def test_an_unregistered_operation():
    report = clarke.check(wave, (leaf(0.0),))
    assert report.verdict is Verdict.UNDECIDED
    (culprit,) = report.culprits
    assert culprit.operation == "half_wave"
    assert culprit.location.line == line_of(wave, "# half wave")
    assert "does not know clarke_test::half_wave" in report.reason
    assert "register_kink" in report.reason


def test_the_same_operation_registered(registered):
    rule = RegionRule(lambda c: (c.args[0],), lambda c: (torch.zeros_like(c.args[0]), c.args[0]))
    registered(torch.ops.clarke_test.half_wave.default)(rule)
    report = clarke.check(wave, (leaf(0.0),))
    assert report.correct is not False
    assert report.touched == 1
    with pytest.raises(clarke.RegistrationError, match="has a rule already"):
        registered(torch.ops.clarke_test.half_wave.default)(rule)


def test_round_at_a_jump():
    def program(x):
        return (torch.round(x) + x).sum()  # jump

    report = clarke.check(program, (leaf(0.5),))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert report.culprits[0].operation == "round"
    assert report.culprits[0].location.line == line_of(program, "# jump")


def test_round_away_from_a_jump():
    assert clarke.check(lambda x: (x.round() * x).sum(), (leaf(1.2),)).verdict is Verdict.SMOOTH


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_a_straight_through_estimator():
    def program(x):
        return StraightThrough.apply(x * 3).sum()  # estimator

    report = clarke.check(program, (leaf(0.4),))
    assert report.verdict is Verdict.SURROGATE
    (culprit,) = report.culprits
    assert culprit.operation == "StraightThrough"
    assert culprit.location.line == line_of(program, "# estimator")
    assert report.gradient[0].item() == 3


def test_square_root_at_zero():
    def program(x):
        return torch.sqrt(x * 4).sum()  # root

    report = clarke.check(program, (leaf(0.0),))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert report.culprits[0].operation == "sqrt"
    assert report.culprits[0].location.line == line_of(program, "# root")


def test_a_nan_from_the_branch_not_taken():
    def program(x):
        return torch.where(x > 0, torch.sqrt(x), x).sum()  # where

    report = clarke.check(program, (leaf(-1.0),))
    assert report.verdict is Verdict.NONFINITE
    assert report.element is None or report.element[0].item() == pytest.approx(1.0)
    assert report.culprits[0].location.line == line_of(program, "# where")


# --- thousands of kinks ---------------------------------------------------------------------------


def zeroed(net):
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    return net


def test_zero_initialisation_of_a_perceptron():
    net = zeroed(
        nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    )
    with torch.no_grad():
        net[4].weight.normal_()  # or no kink would reach the loss
        net[2].weight.normal_()
    x, y = torch.randn(32, 20), torch.randint(0, 3, (32,))
    report = clarke.check(lambda: F.cross_entropy(net(x), y))
    assert report.touched == 2 * 32 * 64
    assert report.relevant == report.touched
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify(run=False)


def test_zero_initialisation_of_a_convolutional_network():
    net = zeroed(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(4 * 64, 3),
        )
    )  # fmt: skip
    with torch.no_grad():
        net[5].weight.normal_()
        net[2].weight.normal_()
    x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 3, (8,))
    report = clarke.check(lambda: F.cross_entropy(net(x), y))
    assert report.touched == 2 * 8 * 4 * 64
    assert report.relevant > 0
    assert report.verdict is Verdict.BOULIGAND


def test_everything_zero():
    """With all weights zero nothing reaches the loss to first order but the last bias."""
    net = zeroed(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)))
    report = clarke.check(lambda: net(torch.randn(4, 5)).square().sum())
    assert report.touched == 28
    assert report.correct


def test_a_relu_that_sees_only_zeros_does_not_matter():
    lin = nn.Linear(6, 5, bias=False)
    report = clarke.check(lambda: torch.relu(lin(torch.zeros(10, 6))).sum())
    assert report.touched == 50
    assert report.relevant == 0
    assert report.verdict is Verdict.SMOOTH


def test_ties_of_identical_patches_do_not_matter():
    conv = nn.Conv2d(1, 3, 3)
    x = torch.ones(4, 1, 20, 20)  # every patch is the same
    report = clarke.check(lambda: F.max_pool2d(conv(x), 2).square().sum())
    assert report.touched == 4 * 3 * 81
    assert report.relevant == 0
    assert report.verdict is Verdict.SMOOTH


def different_patches(size=20):
    """Patches whose responses to the weights (1, 1) are equal although they differ."""
    x = torch.zeros(1, 1, 1, 2 * size, dtype=torch.float64)
    x[..., 0::2] = 2.0
    x[..., 1::2] = 1.0
    x[0, 0, 0, 2:4] = torch.tensor([1.0, 2.0])  # the same sum
    return x


def tied_pool(x):
    conv = nn.Conv2d(1, 1, (1, 2), stride=2, bias=False).double()
    with torch.no_grad():
        conv.weight.fill_(1.0)
    return lambda: F.max_pool2d(conv(x), (1, 2)).sum()


def test_a_tie_of_different_patches_is_a_row():
    program = tied_pool(different_patches(4))
    report = clarke.check(program)
    assert report.touched == 2
    assert report.relevant == 1
    assert report.verdict is Verdict.BOULIGAND
    (witness,) = report.certificate.witnesses
    assert witness.rows.shape[0] == 1
    # AD takes the first patch, (2, 1): the witness must prefer it to (1, 2).
    assert witness.direction[0].reshape(-1) @ torch.tensor([1.0, -1.0]).double() > 0


def test_thousands_of_ties_of_both_kinds_at_once():
    x = torch.cat([different_patches(1000), torch.ones(3, 1, 1, 2000).double()])
    program = tied_pool(x)
    report = clarke.check(program)
    assert report.touched == 4 * 500
    assert report.relevant == 1
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


# --- a wrong derivative formula -------------------------------------------------------------------

_LIBRARY = torch.library.Library("clarke_test", "FRAGMENT")
_LIBRARY.define("bent_square(Tensor x) -> Tensor")


class Bent(torch.autograd.Function):
    """The square, whose backward pass forgets itself at x = 1."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd():
            return torch.ops.clarke_test.bent_square(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return torch.where(x == 1, 0 * x, 2 * x) * grad

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return torch.where(x == 1, 0 * x, 2 * x) * tangent


_LIBRARY.impl("bent_square", lambda x: x * x, "CPU")
_LIBRARY.impl("bent_square", Bent.apply, "AutogradCPU")


def bent(x):
    y = x * 1
    return torch.ops.clarke_test.bent_square(y).sum()  # bent


@pytest.fixture
def bent_is_known(registered):
    nowhere = SingularRule(lambda call: torch.zeros_like(call.args[0], dtype=torch.bool))
    registered(torch.ops.clarke_test.bent_square.default)(nowhere)


def test_a_wrong_formula_at_a_special_input_is_caught(bent_is_known):
    report = clarke.check(bent, (leaf(1.0),))
    assert report.gradient[0].item() == 0  # and should be 2
    assert report.verdict is Verdict.UNDECIDED
    assert "ran the gradient is right (" in report.reason
    assert "running the program does not confirm it" in report.reason
    (culprit,) = report.culprits
    assert culprit.operation == "Bent"  # which implements the operation
    assert culprit.location.line == line_of(bent, "# bent")


def test_the_same_operation_elsewhere(bent_is_known):
    report = clarke.check(bent, (leaf(3.0),))
    assert report.gradient[0].item() == 6
    assert report.verdict is Verdict.SMOOTH


def test_raise_exception():
    clarke.check(lambda w: w.abs().sum(), (leaf(0.0),), raise_exception=True)
    with pytest.raises(clarke.WrongGradientError) as caught:
        clarke.check(
            lambda w: (torch.relu(w) - torch.relu(-w)).sum(), (leaf(0.0),), raise_exception=True
        )
    assert caught.value.report.verdict is Verdict.NOT_CLARKE
    assert "relu" in str(caught.value)


@pytest.mark.parametrize("size", [3, 48])
def test_a_full_maximum_shares_among_all_that_tie(size):
    report = clarke.check(lambda x: x.max(), (torch.zeros(size, requires_grad=True),))
    assert report.verdict is Verdict.CLARKE
    assert report.certificate.verify()
    if size == 3:
        assert report.theorem == "mixture of witnesses"
        assert len(report.certificate.witnesses) == size
    else:
        assert report.theorem == "pieces that bend one way"
