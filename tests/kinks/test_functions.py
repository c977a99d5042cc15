"""Custom autograd.Functions whose true pieces were declared: their own backward is judged."""

import pytest
import torch

import clarke
from clarke.verdict import Verdict
from reference.functions import square
from reference.leaves import leaf


def relu_with(slope_at_zero, *, inside=False):
    """A ReLU of one's own, with a given slope at 0."""

    class MyRelu(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            if inside:
                y = torch.empty_like(x)
                y[:] = x
                y[x < 0] = 0
                return y
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * ((x > 0) + slope_at_zero * (x == 0))

    clarke.register_function(MyRelu, split=lambda x: x, pieces=lambda x: (torch.zeros_like(x), x))
    return MyRelu.apply


HalfSquare = square(0.5, "HalfSquare")
clarke.register_function(HalfSquare, pieces=lambda x: x * x)


class Scaled(torch.autograd.Function):
    """A leaky ReLU times another tensor; new style, with a number among its arguments."""

    @staticmethod
    def forward(x, y, slope):
        return torch.where(x > 0, x, x * slope) * y

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, ctx.slope = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        factor = (x > 0).to(x.dtype) * (1 - ctx.slope) + ctx.slope
        return grad * factor * y, grad * x * factor, None


clarke.register_function(
    Scaled, split=lambda x, y, slope: x, pieces=lambda x, y, slope: (x * slope * y, x * y)
)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("slope", "verdict"),
    [
        (0.0, Verdict.BOULIGAND),
        (1.0, Verdict.BOULIGAND),
        (0.5, Verdict.CLARKE),
        (3.0, Verdict.NOT_CLARKE),
    ],
)
def test_its_slope_at_the_kink_is_judged(slope, verdict, inside):
    relu = relu_with(slope, inside=inside)
    report = clarke.check(lambda x: relu(x).sum(), (leaf(0.0, 1.0, -1.0),))
    assert report.gradient[0].tolist() == [slope, 1, 0]
    assert report.verdict is verdict
    assert report.certificate.verify()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_that_should_cancel(dtype):
    relu = relu_with(0.0)

    def line(x):
        return (relu(x) - relu(-x)).sum()

    x = leaf(0.0, 2.0, dtype=dtype)
    report = clarke.check(line, (x,))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].tolist() == [1, 1]
    assert report.culprits[0].operation == "MyRelu"
    assert clarke.grad(line, (x,))[0].tolist() == [1, 1]
    with clarke.audit(on_wrong="repair") as audit:
        line(x).backward()
    assert audit.reports[-1].verdict is Verdict.NOT_CLARKE
    assert x.grad.tolist() == [1, 1]


def test_the_set_itself():
    relu = relu_with(0.0)
    found = clarke.subdifferential(lambda x: relu(x).sum(), (leaf(0.0, 0.0),)).vertices()
    assert sorted(v.tolist() for v in found) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_a_wrong_backward_is_wrong_where_nothing_is_tied():
    report = clarke.check(lambda x: HalfSquare.apply(x).sum(), (leaf(1.0, -3.0),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].tolist() == [2, -6]
    assert report.culprits[0].operation == "HalfSquare"
    assert "own backward" in report.culprits[0].reason
    x = leaf(1.0, -3.0, dtype=torch.float32)
    with clarke.audit(on_wrong="repair") as audit:
        HalfSquare.apply(x).sum().backward()
    assert audit.reports[-1].verdict is Verdict.NOT_CLARKE
    assert x.grad.tolist() == [2, -6]


def test_several_arguments_and_numbers():
    report = clarke.check(
        lambda x, y: Scaled.apply(x, y, 0.25).sum(), (leaf(0.0, 1.0, -1.0), leaf(1.0, 2.0, 3.0))
    )
    assert report.verdict is Verdict.BOULIGAND
    assert report.gradient[0].tolist() == [0.25, 2, 0.75]


def test_it_is_followed_through_what_comes_before_and_after():
    relu = relu_with(0.0)

    def program(x):
        y = x * 2
        z = relu(y)
        y.mul_(3)  # autograd saved what the Function read; so did the record
        z.add_(1)
        return torch.relu(z - 1).sum() + y.sum() * 0

    def fine(x):
        z = relu(x * 2)
        z.add_(1)
        return torch.relu(z - 1).sum()

    assert clarke.check(fine, (leaf(0.0, 1.0),)).verdict is Verdict.BOULIGAND
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        clarke.check(program, (leaf(0.0, 1.0),))


def test_undeclared_functions_are_held_against_their_forward():
    class Reversal(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            return -grad

    report = clarke.check(lambda x: Reversal.apply(x).sum(), (leaf(1.0),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert "register_function" in report.notes[-1]


@pytest.mark.parametrize("point", [-1.0, 0.0])
def test_pieces_that_are_not_what_forward_computes(point):
    class Lying(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, grad):
            return grad

    clarke.register_function(Lying, split=lambda x: x, pieces=lambda x: (-x, x))
    report = clarke.check(lambda x: Lying.apply(x).sum(), (leaf(point),))
    assert report.verdict is Verdict.UNDECIDED
    assert "another value than its declared pieces" in report.reason
    x = leaf(point)
    with clarke.audit() as audit:
        Lying.apply(x).sum().backward()
    assert audit.reports[-1].verdict is Verdict.UNDECIDED


def test_a_function_with_two_results_is_not_declared_by_pieces():
    class Both(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, one, two):
            return 2 * one + 3 * two

    clarke.register_function(Both, pieces=lambda x: x * 2)
    for program in (lambda x: sum(Both.apply(x)).sum(), lambda x: Both.apply(x)[1].sum()):
        report = clarke.check(program, (leaf(1.0),))
        assert report.verdict in (Verdict.SURROGATE, Verdict.UNDECIDED)


def test_registering():
    with pytest.raises(clarke.RegistrationError, match="declared already"):
        clarke.register_function(HalfSquare, pieces=lambda x: x * x)
    with pytest.raises(clarke.RegistrationError, match="subclass"):
        clarke.register_function(torch.relu, pieces=lambda x: x)
