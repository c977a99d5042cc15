"""Masks built from comparisons at ties: a kink when both sides agree there, a step when not."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.verdict import Verdict

DTYPES = (torch.float64, torch.float32)


def leaf(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def filled(x):
    y = x * 1
    y[y < 0] = 0.0
    return y.sum()


def written(x):
    mask = x > 0
    mask &= x < 1
    return (x * mask).sum()


RIGHT = {
    "and": (lambda x: torch.where((x > 0) & (x < 1), x, 0 * x).sum(), [0.0, 0.5]),
    "or": (lambda x: x.masked_fill(torch.logical_or(x <= 0, x >= 1), 0.0).sum(), [0.0]),
    "xor": (lambda x: (x * ((x > 0) ^ (x > 1)).to(x.dtype)).sum(), [0.0]),
    "not": (lambda x: (x * ~(x < 0)).sum(), [0.0]),
    "any": (lambda x: x.max() * (x > 0).any(), [0.0, -1.0]),
    "all": (lambda x: x.min() * (x > 0).all(), [0.0, 1.0]),
    "slopes": (lambda x: (x * torch.where((x > 0) | (x < -1), 1.0, 0.1)).sum(), [0.0]),
    "boolean indexing": (lambda x: x[x > 0].sum(), [0.0, 1.0]),
    "masked_select": (lambda x: x.masked_select(x > 0).sum(), [0.0, 1.0]),
    "index_put": (filled, [0.0, 1.0]),
    "mask in place": (written, [0.0, 0.5]),
    "eq with equal sides": (lambda x: torch.where(x == 0, 2 * x, 2 * x).sum(), [0.0]),
}

STEPS = {
    "and": (lambda x: torch.where((x >= -1) & (x <= 1), x, 0 * x).sum(), [1.0], "le"),
    "boolean indexing": (lambda x: (x[x > 0] + 1).sum(), [0.0, 1.0], "gt"),
    "a mean of what a mask picks": (lambda x: x[x > 0].mean(), [0.0, 1.0], "gt"),
    "a count": (lambda x: (x * (x > 0)).sum() / (x > 0).sum(), [0.0, 1.0], "gt"),
    "sign": (lambda x: x.sign().sum(), [0.0], "sign"),
    "isolated": (lambda x: torch.where((x >= 0) & (x <= 0), x + 1, 2 * x).sum(), [0.0], "ge"),
}

WRONG = {
    "an outcome that holds nowhere": (
        lambda x: torch.where((x >= 0) & (x <= 0), x, 2 * x).sum(),
        [0.0],
        2.0,
    ),
    "equality": (lambda x: torch.where(x == 0, x, 2 * x).sum(), [0.0], 2.0),
    "two masks": (lambda x: (x * (x > 0)).sum() - ((-x) * (x < 0)).sum(), [0.0], 1.0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RIGHT)
def test_sides_that_agree(name, dtype):
    function, values = RIGHT[name]
    report = clarke.check(function, (leaf(values, dtype),))
    assert report.correct is True
    assert report.certificate.verify()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STEPS)
def test_sides_that_differ_are_a_step(name, dtype):
    function, values, operation = STEPS[name]
    report = clarke.check(function, (leaf(values, dtype),))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert report.culprits[0].operation == operation
    assert report.culprits[0].location.file == __file__


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_by_masks(name, dtype):
    function, values, valid = WRONG[name]
    report = clarke.check(function, (leaf(values, dtype),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert float(report.element[0]) == pytest.approx(valid)


@pytest.mark.parametrize(
    "function",
    [
        # Jumps beside the point, which AD's own selection (relu off, y = 0) does not show.
        lambda x: F.relu(x[0]) * (x[1] > 0),
        lambda x: x[1] * ((x[0] > 0) & (x[1] > -5)),
        lambda x: x[1] * ((x[0] > 0) & (x[1] > 0)),
        # A mask written through a view.
        lambda x: x[1] + _through_a_view(x),
    ],
)
def test_never_right_where_it_jumps_or_cannot_be_followed(function):
    assert clarke.check(function, (leaf([0.0, 0.0]),)).correct is None


def _through_a_view(x):
    mask = torch.zeros(2, dtype=torch.bool)
    mask[0] = x[0] > 0
    return (x * mask).sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum() if x[0] > 0 else 2 * x.sum(),
        lambda x: x.sum() if (x > 0).all() else 2 * x.sum(),
    ],
    ids=["bool", "all"],
)
def test_branches_at_a_tie_that_jump(function, dtype):
    report = clarke.check(function, (leaf([0.0, 1.0], dtype),))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert report.culprits[0].location.file == __file__


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum() if x[0].item() > 0 else 2 * x.sum(),
        lambda x: x.sum() if float(x[0]) > 0 else 2 * x.sum(),
        lambda x: x.sum() / max(len(x[x > 0]), 1),
    ],
    ids=["item", "float", "len"],
)
def test_branches_are_named(function, dtype):
    """A step, which coarse values do not tell from a slope."""
    report = clarke.check(function, (leaf([0.0, 1.0], dtype),))
    seen = dtype is torch.float64
    assert report.verdict is (Verdict.NOT_LIPSCHITZ if seen else Verdict.UNDECIDED)
    assert report.culprits[0].location.file == __file__


def test_a_branch_away_from_its_threshold():
    report = clarke.check(
        lambda x: x.sum() if x[0].item() > 0 else 2 * x.sum(), (leaf([0.5, 1.0]),)
    )
    # Not SMOOTH: what a number decides in Python is seen along rays only.
    assert report.verdict is Verdict.BOULIGAND


@pytest.mark.parametrize("point", [(-1.0, 0.0), (-2.0, 0.0)])
@pytest.mark.parametrize("name", ["log", "sqrt", "angle"])
def test_complex_cuts_are_steps(name, point):
    def f(x, y):
        z = getattr(torch, name)(torch.complex(x, y))
        return z.imag if z.is_complex() else z

    report = clarke.check(f, tuple(leaf(p) for p in point))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert report.culprits[0].operation == name


def test_complex_modulus_at_zero():
    report = clarke.check(lambda x, y: torch.complex(x, y).abs(), (leaf(0.0), leaf(0.0)))
    assert report.verdict is Verdict.CLARKE


@pytest.mark.parametrize("dtype", DTYPES)
def test_rrelu_in_training_keeps_its_slopes(dtype):
    torch.manual_seed(0)
    report = clarke.check(
        lambda x: F.rrelu(x, training=True).sum(), (leaf([0.0, 1.0, -1.0], dtype),)
    )
    assert report.verdict is Verdict.BOULIGAND
    assert 1 / 8 <= float(report.gradient[0][0]) <= 1 / 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_are_constants(dtype):
    for draw in (
        torch.bernoulli,
        torch.poisson,
        lambda p: torch.empty_like(p).bernoulli_(p),
    ):
        report = clarke.check(lambda x, d=draw: (x * d(x)).sum(), (leaf([0.5, 0.25], dtype),))
        assert report.verdict is Verdict.SMOOTH


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_numbers_move_with_their_parameters(dtype):
    """For one seed the values follow mean and deviation, but autograd's slopes are zero."""
    for draw in (
        lambda p: torch.normal(p, 1.0),
        lambda p: torch.normal(0.0, p),
        lambda p: torch.normal(p, p),
    ):
        report = clarke.check(lambda x, d=draw: (x * d(x)).sum(), (leaf([0.5, 0.25], dtype),))
        assert report.verdict is Verdict.UNDECIDED
        assert report.culprits[0].operation == "normal"


@pytest.mark.parametrize("given", ["lengths", "offsets"])
@pytest.mark.parametrize("reduce", ["max", "min", "mean", "sum", "prod"])
def test_segment_reduce(reduce, given):
    where = torch.tensor([2, 1] if given == "lengths" else [0, 2, 3])
    report = clarke.check(
        lambda x: torch.segment_reduce(x, reduce, **{given: where}).sum(), (leaf([1.0, 1.0, 2.0]),)
    )
    expected = Verdict.CLARKE if reduce in ("max", "min") else Verdict.SMOOTH
    assert report.verdict is expected


@pytest.mark.parametrize("factor", [1.0, -2.0])
@pytest.mark.parametrize("order", ["nuc", 2, -2, "fro"])
@pytest.mark.parametrize("values", [[0.0] * 4, [1.0, 0.0, 0.0, 1.0], [1.0] * 4])
def test_matrix_norms_by_their_own_sets(order, values, factor):
    report = clarke.check(
        lambda x: factor * torch.linalg.matrix_norm(x.reshape(2, 2), order), (leaf(values),)
    )
    assert report.correct is True


def test_a_norm_of_order_below_one_is_not_lipschitz_at_a_zero_entry():
    def f(x, order):
        return torch.linalg.vector_norm(x, order)

    assert clarke.check(lambda x: f(x, 0.5), (leaf([0.0, 0.0]),)).correct is None
    for order in (0.5, 0.0):
        report = clarke.check(lambda x, o=order: f(x, o), (leaf([0.0, 2.0]),))
        assert report.verdict is Verdict.NOT_LIPSCHITZ
