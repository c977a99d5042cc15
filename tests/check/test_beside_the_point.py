"""What happens beside the point and not at it: verdicts must not rest on the point alone."""

import numpy as np
import pytest
import torch

import clarke
from clarke import Verdict
from reference.functions import square
from reference.leaves import leaf


def test_a_gradient_of_nan_along_the_witness_confirms_nothing():
    """For every negative argument the function is not defined; the only slope nearby is 1."""
    report = clarke.check(lambda v: (torch.relu(v) * (1 + v.pow(1.5))).sum(), (leaf(0.0),))
    assert report.gradient[0].item() == 0
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert "On one side of the point the function is not defined" in report.reason


def test_nan_on_one_side_is_not_smooth():
    report = clarke.check(
        lambda v: torch.relu(v[0]) * torch.pow(v[1], 1.5) + v[0], (leaf(0.0, 0.0),)
    )
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert "On one side of the point the function is not defined" in report.reason


CURVES = [
    lambda v, c: c * v**2,
    lambda v, c: (c**0.5 * torch.sin(v)) ** 2,
]


@pytest.mark.parametrize("curve", CURVES, ids=["square", "sine"])
@pytest.mark.parametrize("size", [1.0, 1e6])
@pytest.mark.parametrize("c", [1.0, 1e-5, 1e-9, 1e-10, 1e-12, 1e-14])
def test_a_cusp_of_small_curvature_is_not_taken_for_a_line(curve, size, c):
    """Between the two parabolas both ReLUs are off: AD's (0, 0) is a limit of gradients."""

    def f(v):
        bend = curve(v[1], c)
        return torch.relu(size * v[0] - bend) - torch.relu(-size * v[0] - bend)

    inside = leaf(0.0, 1.0)
    assert torch.autograd.grad(f(inside), inside)[0].tolist() == [0, 0]
    assert clarke.check(f, (leaf(0.0, 0.0),)).verdict is Verdict.UNDECIDED
    found = clarke.subdifferential(f, (leaf(0.0, 0.0),))
    assert found.contains(torch.zeros(2, dtype=torch.float64)).inside is not False


def test_without_curvature_the_same_is_wrong():
    report = clarke.check(
        lambda v: torch.relu(v[0] - 0 * v[1]) - torch.relu(-v[0] - 0 * v[1]), (leaf(0.0, 0.0),)
    )
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()


norm = torch.linalg.vector_norm
STEEP_BESIDE = [
    (lambda v: v[0] * norm(v[1:], 0.5), (0.0, 0.0, 0.0)),
    (lambda v: v[0] ** 2 * torch.atan2(v[1], v[0]), (0.0, 0.0)),
    (lambda v: v[0] ** 2 * torch.complex(v[0], v[1]).angle(), (0.0, 0.0)),
    (lambda v: v[0] * torch.pow(v[1].abs(), v[2]), (0.0, 0.0, 1.0)),
    (lambda v: v[0] * torch.cdist(v[None, 1:2], v[None, 2:], p=0.5).sum(), (0.0, 1.0, 1.0)),
]


@pytest.mark.parametrize(("f", "at"), STEEP_BESIDE)
def test_an_infinite_slope_that_is_multiplied_by_zero_at_the_point_only(f, at):
    """Slopes are unbounded, or values jump, however near; only at the point nothing shows."""
    assert clarke.check(f, (leaf(*at),)).verdict is Verdict.UNDECIDED
    with pytest.raises(clarke.ClarkeError):
        clarke.subdifferential(f, (leaf(*at),))
    with pytest.raises(clarke.UnsupportedError):
        clarke.grad(f, (leaf(*at),))


def test_bounds_that_coincide_above_the_argument():
    """There the clamp is the least of the two bounds, which is a kink: torch returns zeros."""

    def f(v):
        return torch.clamp(v[0], v[1], v[2])

    report = clarke.check(f, (leaf(-1.0, 0.0, 0.0),))
    if torch.__version__ >= "2.14":  # mended there
        assert report.correct
        return
    assert report.gradient[0].tolist() == [0.0, 0.0, 0.0]
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].tolist() in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    (element,) = clarke.grad(f, (leaf(-1.0, 0.0, 0.0),))
    assert element.tolist() in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    found = clarke.subdifferential(f, (leaf(-1.0, 0.0, 0.0),)).vertices()
    assert sorted(found.tolist()) == [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    above = clarke.check(f, (leaf(1.0, 0.0, 0.0),))
    assert above.verdict is Verdict.SMOOTH
    assert above.gradient[0].tolist() == [0, 0, 1]


def test_constant_bounds_that_coincide_are_no_kink():
    bound = torch.zeros((), dtype=torch.float64)
    report = clarke.check(lambda v: torch.clamp(v[0], bound, bound) + v[1], (leaf(-1.0, 0.0),))
    assert report.verdict is Verdict.SMOOTH


JUMPS_BESIDE = [
    # By y squared, however it is scaled.
    lambda v: 1e13 * torch.where(v[0] > 0, 1e-13 * (v[0] + v[1] ** 2), 0 * v[0]) + v[0],
    # In the last of many comparisons.
    lambda v: (
        torch.where((v[0] * ONES) > 0, 2 * v[0] * ONES, v[0] * ONES).sum()
        + (v[0] + v[1] ** 2) * (v[0] > 0)
    ),
]
ONES = torch.ones(20, dtype=torch.float64)


@pytest.mark.parametrize("f", JUMPS_BESIDE)
def test_jumps_are_not_too_small_to_count(f):
    assert not clarke.check(f, (leaf(0.0, 0.0),)).verdict.correct
    with pytest.raises(clarke.UnsupportedError):
        clarke.grad(f, (leaf(0.0, 0.0),))


# ---------------------------------------------------------------- numbers read into Python


def items(v):
    return v[0].item(), v[1].item()


READERS = [
    items,
    lambda v: v.tolist(),
    lambda v: v.detach().tolist(),
    lambda v: v.detach().numpy(),
    lambda v: np.asarray(v.detach()),
    lambda v: [float(x) for x in v.detach()],
]


def wedge(v, read=items):
    a, b = read(v)
    if a > 0 and b > 0 and a > 3 * b:
        return torch.minimum(v[1], v[0] - 3 * v[1])
    return v.sum() * 0


@pytest.mark.parametrize("read", READERS)
def test_a_number_that_was_read_may_decide_a_branch_that_no_ray_meets(read):
    report = clarke.check(lambda v: wedge(v, read), (leaf(0.0, 0.0),))
    assert report.verdict is Verdict.BOULIGAND
    assert "read into Python" in report.reason
    assert report.reason.count("test_beside_the_point.py") == 1
    with pytest.raises(clarke.UnsupportedError, match="read into Python"):
        clarke.subdifferential(lambda v: wedge(v, read), (leaf(0.0, 0.0),))
    assert clarke.grad(wedge, (leaf(0.0, 0.0),))[0].tolist() == [0, 0]


def test_the_program_is_judged_beside_a_number_that_was_read():
    """AD's 0 is wrong for the recorded run and right for the program, which is 0 elsewhere."""

    def f(v):
        return torch.relu(v[0]) - torch.relu(-v[0]) if v[0].item() == 0 else 0 * v[0]

    report = clarke.check(f, (leaf(0.0),))
    assert report.verdict is Verdict.BOULIGAND
    assert "what runs there is judged" in str(report)


ONLY_AT_ZERO = [
    lambda v: v.sum() * 0 if v.abs().sum().item() == 0 else v.sum(),
    lambda v: v.sum() * 0 if v.norm().item() == 0 else v.sum(),
    lambda v: 2 * v.sum() if v[0].item() > 0 else v.sum(),
]


@pytest.mark.parametrize("f", ONLY_AT_ZERO)
def test_no_gradient_of_a_branch_that_holds_at_the_point_only(f):
    with pytest.raises(clarke.UnsupportedError, match="takes another branch"):
        clarke.grad(f, (leaf(0.0, 0.0),))


def test_a_leaf_that_is_read_before_any_operation():
    with pytest.raises(clarke.UnsupportedError, match="takes another branch"):
        clarke.grad(
            lambda v: 2 * v if v.item() > 0 else 1 * v, (torch.zeros((), requires_grad=True),)
        )


def test_a_number_that_was_only_printed_leaves_the_gradient_right():
    def f(v):
        y = torch.relu(v).sum()
        y.item()
        return 2 * y

    assert clarke.check(f, (leaf(0.0, 1.0),)).verdict is Verdict.BOULIGAND
    assert clarke.grad(f, (leaf(0.0, 1.0),))[0].tolist()[1] == 2


@pytest.mark.parametrize("fails", [False, True])
def test_the_methods_of_tensors_are_put_back(fails):
    names = ("tolist", "numpy", "__array__", "__dlpack__")
    before = {n: torch.Tensor.__dict__.get(n) for n in names}

    def f(v):
        v.tolist()
        if fails:
            raise KeyError
        return v.sum()

    if fails:
        with pytest.raises(KeyError):
            clarke.check(f, (leaf(1.0),))
    else:
        clarke.check(f, (leaf(1.0),))
    assert {n: torch.Tensor.__dict__.get(n) for n in names} == before


AT_ZERO_ONLY = {
    "tolist": lambda v: v.tolist()[0] == 0,
    "numpy": lambda v: v.detach().numpy()[0] == 0,
    "dlpack": lambda v: np.from_dlpack(v.detach())[0] == 0,
    "equal": lambda v: torch.equal(v, torch.zeros(1, dtype=torch.float64)),
    "allclose": lambda v: torch.allclose(v, torch.zeros(1, dtype=torch.float64), atol=0),
    "nonzero": lambda v: len(v.nonzero()) == 0,
    "unique": lambda v: len(torch.unique(torch.cat([v, -v]))) == 1,
}


@pytest.mark.parametrize("holds", AT_ZERO_ONLY.values(), ids=AT_ZERO_ONLY)
def test_conditions_that_python_is_told_of(holds):
    def f(v):
        return (5 * v).sum() if holds(v) else v.sum()

    assert clarke.check(f, (leaf(0.0),)).verdict is Verdict.UNDECIDED
    for answer in (clarke.grad, clarke.subdifferential):
        with pytest.raises(clarke.UnsupportedError, match="read into Python"):
            answer(f, (leaf(0.0),))


def logged(v):
    loss = torch.relu(v).pow(2).sum()
    loss.detach().item()
    return loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_logged_loss_is_no_surrogate_however_small_the_point(dtype):
    x = torch.tensor([1e-6, 2e-6], dtype=dtype, requires_grad=True)
    assert clarke.check(logged, (x,)).verdict is Verdict.BOULIGAND
    assert clarke.grad(logged, (x,))[0].tolist() == pytest.approx([2e-6, 4e-6])


def test_curvature_beside_large_values():
    """The third maximum is of another size; its roundings are none of the first two's."""

    def f(z):
        first, second = z[0], -z[0] + 1e-4 * z[1] ** 2
        pairs = [torch.stack([s, 0 * s]) for s in (first, second)]
        large = z[2] + 1e9
        found = torch.stack([*pairs, torch.stack([large, large])]).max(1).values
        return found[0] - found[1] + 0 * found[2]

    inside = leaf(1e-6, 1.0, 0.0)
    assert torch.autograd.grad(f(inside), inside)[0][0] == 2  # between x = 0 and the parabola
    report = clarke.check(f, (leaf(0.0, 0.0, 0.0),))
    assert report.gradient[0][0] == 2
    assert report.verdict is Verdict.UNDECIDED


def test_jumps_beside_large_values():
    def f(z):
        values = torch.stack([z[0] + z[1] ** 2, z[2] + 1e6])
        return (values * (torch.stack([z[0], z[0] + 1]) > 0)).sum()

    assert not clarke.check(f, (leaf(0.0, 0.0, 0.0),)).verdict.correct
    with pytest.raises(clarke.UnsupportedError):
        clarke.grad(f, (leaf(0.0, 0.0, 0.0),))


@pytest.mark.parametrize(
    ("dtype", "k", "verdict"),
    [
        (torch.float32, 1e-4, Verdict.NOT_CLARKE),
        (torch.float32, 1e-5, Verdict.NOT_CLARKE),
        (torch.bfloat16, 0.2, Verdict.NOT_CLARKE),
        (torch.float16, 0.02, Verdict.NOT_CLARKE),
        (torch.float16, 1e-4, Verdict.UNDECIDED),  # float16 has no number between 1 and 1 + 1e-3
        (torch.float32, 0.0, Verdict.SMOOTH),
    ],
)
def test_a_coarse_type_does_not_hide_a_kink(dtype, k, verdict):
    x = torch.zeros(1, dtype=dtype, requires_grad=True)
    report = clarke.check(lambda v: (v + k * (torch.relu(v) - torch.relu(-v))).sum(), (x,))
    assert report.gradient[0].item() == 1
    assert report.verdict is verdict


def test_a_slope_that_is_steep_from_afar_only():
    """The constant of sqrt(relu(y) + 1e-8) is 5000; what else is unclear here stays UNDECIDED."""

    def wedge_of_three(v):
        x, y = v
        return torch.where(x > 0, torch.where(y < 0, x, torch.minimum(x, 2 * x + y)), 0 * x)

    def f(v):
        return wedge_of_three(v) + torch.sqrt(torch.relu(v[1]) + 1e-8)

    assert clarke.check(f, (leaf(0.0, 0.0),)).verdict is Verdict.UNDECIDED


def test_the_gradient_of_a_declared_function_is_that_of_its_pieces():
    wrong = square(1.5)
    clarke.register_function(wrong, pieces=lambda x: x * x)
    assert clarke.check(lambda v: wrong.apply(v).sum(), (leaf(1.0),)).verdict is Verdict.NOT_CLARKE
    assert clarke.grad(lambda v: wrong.apply(v).sum(), (leaf(1.0),))[0].tolist() == [2]
