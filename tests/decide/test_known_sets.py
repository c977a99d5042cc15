"""Every case of the tables: its set, its verdict, and proofs that hold."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import clarke
from clarke import Verdict
from reference import KNOWN, ad_gradient, contains, to_torch

DENOMINATOR = 1 << 12


def rational(vector):
    from fractions import Fraction

    return tuple(Fraction(float(v)).limit_denominator(DENOMINATOR) for v in vector)


def point(values):
    return torch.tensor([float(v) for v in values], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_the_table_of_known_sets(known):
    x = point(known.point)
    program = to_torch(known.expr)
    gradient = rational(ad_gradient(known.expr, known.point))
    report = clarke.check(program, (x,))
    found = clarke.subdifferential(program, (x,))
    proved = {rational(v) for v in found.found().tolist()}
    assert proved <= known.bouligand
    if "cusp" in known.name:
        # The element (-1, 0) lives between two parabolas: no direction leads there.
        assert report.verdict is Verdict.UNDECIDED
        assert not found.complete
        return
    assert found.complete
    assert proved == known.bouligand
    inside = contains(known.bouligand, gradient)
    assert report.correct is inside
    assert report.certificate.verify()
    membership = found.contains(torch.tensor([float(g) for g in gradient], dtype=torch.float64))
    assert bool(membership) is inside
    assert membership.verify()
    if not inside:
        assert report.verdict is Verdict.NOT_CLARKE
        assert rational(torch.cat([g.reshape(-1) for g in report.element])) in known.bouligand
    taken = clarke.grad(program, (x,))
    assert rational(torch.cat([g.reshape(-1) for g in taken])) in known.bouligand


def scalars(*values, dtype=torch.float64):
    return tuple(torch.tensor(v, dtype=dtype, requires_grad=True) for v in values)


def bce_with_logits(x, t):
    return torch.clamp(x, min=0) - x * t + torch.log1p(torch.exp(-torch.abs(x)))


def test_bce_with_logits_is_refuted_with_its_hint():
    x, t = scalars(0.0, 0.0)
    report = clarke.check(bce_with_logits, (x, t), wrt=[x])
    assert report.verdict is Verdict.NOT_CLARKE
    assert [round(float(e), 12) for e in report.element] == [0.5]
    assert sorted(c.operation for c in report.culprits) == ["abs", "clamp"]
    assert all(c.location.file.endswith("test_known_sets.py") for c in report.culprits)
    assert "softplus" in " ".join(report.cures)
    assert clarke.subdifferential(bce_with_logits, (x, t), wrt=[x]).vertices().tolist() == [[0.5]]


def test_asinh_written_with_sign_is_refuted():
    """sign(x) log(|x| + sqrt(x² + 1)) is asinh: its derivative at 0 is 1, AD's is 0."""
    (x,) = scalars(0.0)
    report = clarke.check(
        lambda x: torch.sign(x) * torch.log(x.abs() + torch.sqrt(x * x + 1)), (x,)
    )
    assert report.gradient[0].item() == 0
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].item() == pytest.approx(1)
    assert {c.operation for c in report.culprits} == {"sign", "abs"}


def test_the_tie_of_a_box_is_right_where_gradcheck_fails():
    """The signed distance at the middle of a box whose four sides may move."""
    sides = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)

    def distance(sides):
        return torch.cat([0.5 - sides[:2], sides[2:] - 0.5]).amin()

    report = clarke.check(distance, (sides,))
    assert report.gradient[0].tolist() == [-0.25, -0.25, 0.25, 0.25]
    assert report.verdict is Verdict.CLARKE
    found = clarke.subdifferential(distance, (sides,))
    assert {tuple(v) for v in found.vertices().tolist()} == {
        (-1, 0, 0, 0),
        (0, -1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
    }
    # Finite differences give a half for each, which is in no way a valid choice.
    assert not found.contains(torch.tensor([-0.5, -0.5, 0.5, 0.5], dtype=torch.float64))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(distance, (sides,))


def test_the_cusp_is_never_refuted_at_its_hidden_element():
    """(-1, 0) is a limiting gradient of max(0, y² - max(0, x)), reached only along curves."""

    def cusp(v):
        zero = torch.zeros((), dtype=v.dtype)
        return torch.maximum(zero, v[1].square() - torch.maximum(zero, v[0]))

    v = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(cusp, (v,))
    hidden = found.contains(torch.tensor([-1.0, 0.0], dtype=torch.float64))
    assert hidden.inside is None
    with pytest.raises(clarke.UnsupportedError, match="inside"):
        bool(hidden)
    assert not hidden.verify()
    with pytest.raises(clarke.UnsupportedError, match="found"):
        found.vertices()
    # What no selection can give is still refuted.
    outside = found.contains(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert outside.inside is False
    assert outside.verify()


class OnesAtTies(torch.autograd.Function):
    """A maximum whose backward gives 1 to every tied element."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.max()

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * (x == x.max()).to(x.dtype)


class OnesInPools(torch.autograd.Function):
    """A maxpool whose backward gives 1 to every tied element of a window."""

    @staticmethod
    def forward(ctx, x):
        out = F.max_pool1d(x, 2)
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx, upstream):
        x, out = ctx.saved_tensors
        hit = x == out.repeat_interleave(2, -1)
        return upstream.repeat_interleave(2, -1) * hit.to(x.dtype)


@pytest.mark.parametrize(
    "program",
    [OnesAtTies.apply, lambda v: OnesInPools.apply(v.reshape(1, 1, -1)).sum()],
    ids=["max", "maxpool"],
)
def test_ones_at_every_tie_are_no_generalized_gradient(program):
    v = torch.ones(2, dtype=torch.float64, requires_grad=True)
    report = clarke.check(program, (v,))
    assert report.gradient[0].tolist() == [1, 1]
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()
    assert sorted(clarke.grad(program, (v,))[0].tolist()) == [0, 1]


def test_rounding_of_a_member_stays_a_member():
    """Three tenths times a third of three ties: AD rounds, and the set rounds otherwise."""
    v = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    factors = torch.tensor([0.1, 0.3, 0.7], dtype=torch.float64)
    report = clarke.check(lambda v: (factors * v).amax() * 0.3, (v,))
    assert report.verdict is Verdict.CLARKE
    found = clarke.subdifferential(lambda v: (factors * v).amax() * 0.3, (v,))
    membership = found.contains(report.gradient[0])
    assert membership
    assert membership.verify()
    assert not found.contains(report.gradient[0] + 1e-6)
