"""NaN, infinite slopes and steps: the verdict each deserves, by name and line; no false alarm."""

import inspect
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.verdict import Verdict
from reference.leaves import leaf


def judged(function, *inputs):
    """The report, and the source line of the operation that it names."""
    report = clarke.check(function, inputs)
    if not report.culprits:
        return report, ""
    place = report.culprits[0].location
    assert place.file == __file__
    source, first = inspect.getsourcelines(inspect.getmodule(judged))
    return report, source[place.line - max(first, 1)]


def where_root(x):
    root = x.sqrt()  # the root of a negative number
    return torch.where(x > 0, root, x).sum()


def test_where_with_a_root_of_negative_numbers():
    report, line = judged(where_root, leaf(-1.0, 4.0))
    assert report.verdict is Verdict.NONFINITE
    assert report.culprits[0].operation == "sqrt"
    assert "root of a negative number" in line
    torch.testing.assert_close(report.element[0], leaf(1.0, 0.25).detach())


def root_of_square(x):
    square = (x - 1) ** 2
    return square.sqrt().sum()  # slope infinite at zero


def test_root_of_a_square():
    report, line = judged(root_of_square, leaf(1.0))
    assert report.verdict is Verdict.NONFINITE
    assert report.culprits[0].operation == "sqrt"
    assert "slope infinite" in line
    assert abs(abs(float(report.element[0])) - 1) < 1e-6


def squared_norm_by_root(x):
    return (x * x).sum().sqrt() ** 2  # the long way round


def test_squared_norm_at_zero_by_both_routes():
    report, line = judged(squared_norm_by_root, leaf(0.0, 0.0))
    assert report.verdict is Verdict.NONFINITE
    assert "long way round" in line
    torch.testing.assert_close(report.element[0], torch.zeros(2, dtype=torch.float64))
    assert clarke.check(lambda x: x.norm() ** 2, (leaf(0.0, 0.0),)).verdict is Verdict.SMOOTH


def clamped_root(x):
    return x.clamp(min=0).sqrt().sum()  # steep from the right


def test_root_of_a_clamped_zero_is_not_lipschitz():
    report, line = judged(clamped_root, leaf(0.0, 1.0))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert report.culprits[0].operation == "sqrt"
    assert "steep from the right" in line


def entropy(x):
    return torch.special.entr(x).sum()  # slope grows like a logarithm


def test_logarithmic_slopes_are_not_lipschitz():
    report, line = judged(entropy, leaf(0.0, 1.0))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert "like a logarithm" in line


def test_underflow_in_single_precision_is_found_and_repaired():
    def f(x):
        return (x * x).sqrt().sum()  # the square of 1e-30 is 0 in float32

    report, line = judged(f, leaf(1e-30, dtype=torch.float32))
    assert report.verdict is Verdict.NONFINITE
    assert "is 0 in float32" in line
    assert float(report.element[0]) == pytest.approx(1.0)


def test_a_finite_element_is_a_limit_of_gradients():
    """hypot at the origin: any unit vector."""
    report = clarke.check(torch.hypot, (leaf(0.0), leaf(0.0)))
    assert report.verdict is Verdict.NONFINITE
    a, b = (float(t) for t in report.element)
    assert a * a + b * b == pytest.approx(1, abs=1e-6)


def test_infinite_value_has_no_element():
    report = clarke.check(lambda x: x.log().sum(), (leaf(0.0),))
    assert report.correct is None
    assert report.element is None


def test_large_values_do_not_look_steep():
    """Rounding of a large constant is no infinite slope: the relevant step is elsewhere."""

    def f(x):
        return 1e8 + x.sum() + (x[0] * torch.sign(x[1])) * 0.0

    assert clarke.check(f, (leaf(1.0, 0.0),)).verdict is not Verdict.NOT_LIPSCHITZ


@pytest.mark.parametrize(
    ("function", "inputs", "expected"),
    [
        (lambda x: x.std(), (1.0, 1.0, 1.0), Verdict.CLARKE),
        (lambda x: x.norm(), (0.0, 0.0), Verdict.CLARKE),
        (
            lambda x: torch.cdist(x[None, :2], x[None, 2:]).sum(),
            (1.0, 2.0, 1.0, 2.0),
            Verdict.CLARKE,
        ),
        (lambda x: torch.linalg.matrix_norm(x.reshape(2, 2), 2), (1.0, 0.0, 0.0, 1.0), None),
    ],
    ids=["std", "norm", "cdist", "spectral norm"],
)
def test_kinks_of_several_variables(function, inputs, expected):
    """The mean of limits along a ray and its opposite proves what balls contain; else UNDECIDED."""
    report = clarke.check(function, (leaf(*inputs),))
    assert report.verdict is (expected or report.verdict)
    assert report.correct is not False
    if report.certificate is not None:
        assert report.certificate.verify()


def a_margin(x):
    anchor = x[None]
    return F.triplet_margin_loss(anchor, anchor * 1.0, anchor.detach() + 50)


QUIET = {
    "maxpool after relu": (
        lambda x: F.max_pool1d(F.relu(x)[None, None], 2).sum(),
        (-1.0, -2.0, 3.0, 1.0),
    ),
    "dropout before relu": (
        lambda x: F.relu(x * torch.tensor([0.0, 2.0], dtype=x.dtype)).sum(),
        (1.0, 1.0),
    ),
    "relu on zero-padded pixels": (
        lambda x: F.relu(F.conv1d(F.pad(x[None, None], (3, 3)), x.new_ones(1, 1, 2))).sum(),
        (1.0, 2.0),
    ),
    "max over repeated points": (lambda x: x[[0, 0, 1]].max(), (1.0, 0.5)),
    "relu at 0": (lambda x: F.relu(x).sum(), (0.0,)),
    "maximum at a tie": (lambda x: torch.maximum(x[0], x[1]), (1.0, 1.0)),
    "clamp on its bound": (lambda x: x.clamp(0.0, 1.0).sum(), (0.0, 1.0)),
    "l1_loss at residual 0": (lambda x: F.l1_loss(x, x.new_zeros(2)), (0.0, 1.0)),
    "amax of (1, 2, 2, 2)": (lambda x: x.amax(), (1.0, 2.0, 2.0, 2.0)),
    "max_pool of (1, 2, 2, 2)": (lambda x: F.max_pool1d(x[None], 4).sum(), (1.0, 2.0, 2.0, 2.0)),
    "topk of (1, 2, 2, 2)": (
        lambda x: (x.topk(2).values * x.new_tensor([1.0, 3.0])).sum(),
        (1.0, 2.0, 2.0, 2.0),
    ),
    "sort of (1, 2, 2, 2)": (
        lambda x: (x.sort().values * x.new_tensor([1.0, 3.0, 5.0, 9.0])).sum(),
        (1.0, 2.0, 2.0, 2.0),
    ),
    "clipped policy objective at ratio 1": (
        lambda x: torch.min(x.exp() * 2, x.exp().clamp(0.8, 1.2) * 2).mean(),
        (0.0, 0.0),
    ),
    "min over distances": (
        lambda x: (x[:, None] - x.new_tensor([0.0, 2.0])).abs().min(1).values.sum(),
        (1.0, 5.0),
    ),
    "inactive triplet": (a_margin, (1.0, 2.0)),
    "cosine similarity": (lambda x: F.cosine_similarity(x[:2], x[2:], dim=0), (1.0, 0.0, 0.0, 1.0)),
    "quantile": (lambda x: x.quantile(0.4), (1.0, 1.0, 3.0, 1.0)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", QUIET)
def test_no_false_alarm(name, dtype):
    function, values = QUIET[name]
    assert clarke.check(function, (leaf(*values, dtype=dtype),)).correct is True


def normalised_in_a_network(x):
    unit = x / x.norm(dim=1, keepdim=True)  # zero by zero
    return (unit @ torch.ones(2, 3, dtype=x.dtype)).relu().sum()


def test_a_value_that_is_not_finite_is_named_where_it_was_made():
    report, line = judged(normalised_in_a_network, leaf((0.0, 0.0), (1.0, 2.0)))
    assert report.verdict is Verdict.NONFINITE
    assert report.culprits[0].operation == "div"
    assert "zero by zero" in line
    assert report.element is None
    assert "own value is not finite" in report.reason


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda x: torch.softmax(x.masked_fill(x > -1, -math.inf), 0).sum(), "softmax"),
        (lambda x: nn.functional.cross_entropy(x[None], torch.tensor([-100])), "nll_loss_forward"),
        (lambda x: x[x > 9].mean(), "mean"),
        (lambda x: (x.relu() + (x.detach() / 0 - x.detach() / 0)).sum(), ""),  # before it began
    ],
    ids=["all masked", "all ignored", "mean of nothing", "detached"],
)
def test_a_finite_gradient_of_nan_is_told(function, operation):
    report, _ = judged(function, leaf(1.0, 0.0))
    assert all(bool(torch.isfinite(g).all()) for g in report.gradient)
    assert report.verdict is Verdict.NONFINITE
    assert report.reason.startswith(operation)
    assert "no generalized gradient" in report.reason
    x = leaf(1.0, 0.0)
    with pytest.warns(clarke.WrongGradientWarning, match="The value differentiated at"):  # noqa: SIM117
        with clarke.audit() as watch:
            function(x).backward()
    assert watch.steps[0].verdict is Verdict.NONFINITE


def test_no_element_is_claimed_where_the_value_is_infinite():
    # Beside the point the determinant is negative on some rays, where AD's gradient is zero.
    report, _ = judged(lambda x: torch.logdet(x) * 1, leaf((1.0, 1.0), (1.0, 1.0)))
    assert report.verdict is Verdict.NONFINITE
    assert report.element is None


def test_a_finite_gradient_of_an_infinite_value_is_not_taken_for_right():
    for x, verdict in (
        (leaf(1e200), Verdict.NONFINITE),
        (leaf(1e30, dtype=torch.float32), Verdict.UNDECIDED),  # finite in float64
    ):
        report = clarke.check(lambda x: (x * x).sum().sqrt(), (x,))
        assert float(report.gradient[0]) == 0  # the derivative is 1
        assert report.verdict is verdict


def distances(x):
    return ((x[:, None] - x[None]) ** 2).sum(-1).sqrt().sum()  # each point's own is zero


def test_distances_to_itself_leave_a_finite_gradient():
    report, line = judged(distances, leaf((0.0, 0.0), (1.0, 1.0)))
    assert report.verdict is Verdict.NONFINITE
    assert "own is zero" in line
    expected = 2**0.5 * torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(report.element[0], expected)


def test_a_row_that_a_mask_switches_off():
    mask = torch.tensor([[-torch.inf, -torch.inf], [0.0, 0.0]], dtype=torch.float64)
    report, _ = judged(
        lambda x: torch.logsumexp(x + mask, 1).exp().sum(), leaf((0.0, 0.0), (0.0, 0.0))
    )
    assert report.verdict is Verdict.NONFINITE
    expected = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(report.element[0], expected)


def test_squares_that_vanish_in_single_precision_are_no_infinite_slope():
    x = leaf(1e-30, 1e-30, dtype=torch.float32)
    report = clarke.check(lambda x: (x / (x * x).sum().sqrt()).sum(), (x,))
    assert report.verdict is Verdict.NONFINITE


def test_the_element_of_an_overflow_is_no_kinks_convention():
    # In float64 nothing overflows, but AD's zero for relu(x) - relu(-x) at 0 is wrong there too.
    x = leaf(0.0, 100.0, dtype=torch.float32)

    def program(x):
        line = torch.relu(x[0]) - torch.relu(-x[0])
        return line + (1 + x[1].exp()).log()

    report = clarke.check(program, (x,))
    assert report.verdict is Verdict.NONFINITE
    assert report.element is None or abs(float(report.element[0][0]) - 1) < 1e-3


def test_no_element_is_claimed_at_a_step():
    report = clarke.check(lambda x: torch.atan(1 / x).sum(), (leaf(0.0),))
    assert report.verdict is Verdict.NOT_LIPSCHITZ or report.element is None


def test_std_of_a_constant_vector():
    assert clarke.check(lambda x: x.std(), (leaf(1.0, 1.0, 1.0),)).verdict is Verdict.CLARKE


def test_inactive_triplet_loss_at_coincident_points():
    report = clarke.check(a_margin, (leaf(1.0, 2.0),))
    assert report.verdict is Verdict.SMOOTH
    assert bool((report.gradient[0] == 0).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_false_alarm_in_a_small_network(dtype):
    """Padding, dropout, ReLU, maxpool, a max over points and l1_loss, on a batch with zeros."""
    torch.manual_seed(0)
    x = torch.randn(4, 1, 8, 8, dtype=dtype).clamp(min=0).round()
    first = torch.nn.Conv2d(1, 3, 3, padding=1, dtype=dtype)
    last = torch.nn.Linear(3, 2, dtype=dtype)

    def loss():
        h = F.relu(F.dropout(first(x), 0.5))
        h = F.max_pool2d(h, 2).flatten(2).amax(2)
        return F.l1_loss(last(h), torch.zeros(4, 2, dtype=dtype))

    assert clarke.check(loss).correct is True
