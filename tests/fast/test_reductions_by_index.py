"""Reductions by index, judged quickly, against the whole ladder: with ties, repeats and zeros."""

import pytest
import torch

import clarke
from clarke import Verdict


def verdicts(make, quick, steps=2):
    """The verdicts on some steps of a program; the later ones are of a program that is known."""
    step = make()
    with clarke.audit(lambda report: None, settings=clarke.Settings(quick=quick), seconds=20) as a:
        for _ in range(steps):
            step()
    return [s.verdict for s in a.steps], [s.kinks for s in a.steps]


def reduction(seed, *, include, whole, reduce, repeated):
    def make():
        torch.manual_seed(seed)
        nodes = torch.randint(-2, 3, (4, 3)) if whole else torch.randn(4, 3)
        nodes = nodes.double().requires_grad_()
        weight = torch.randint(-1, 2, (3, 2)) if whole else torch.randn(3, 2)
        weight = weight.double().requires_grad_()
        source = torch.randint(0, 2 if repeated else 4, (6,))
        target = torch.randint(0, 3, (6,))
        factor = torch.randint(-2, 3, (3, 2)).double()

        def step():
            message = nodes[source].mm(weight)
            index = target[:, None].expand_as(message)
            start = torch.zeros(3, 2, dtype=torch.float64)
            joined = start.scatter_reduce(0, index, message, reduce, include_self=include)
            (joined * factor).sum().backward()
            nodes.grad = weight.grad = None

        return step

    return make


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("reduce", ["amax", "amin"])
def test_quick_verdicts_are_those_of_the_ladder(seed, include, whole, reduce):
    make = reduction(seed, include=include, whole=whole, reduce=reduce, repeated=seed % 2 == 0)
    quick, _ = verdicts(make, quick=True)
    slow, _ = verdicts(make, quick=False)
    for own, other in zip(quick, slow, strict=True):
        assert own is other or (own is Verdict.SMOOTH and other.correct is not False), (own, other)
    assert quick[0].correct == slow[0].correct or slow[0] is Verdict.UNDECIDED


def test_ties_between_equal_messages_are_smooth_at_once():
    def make():
        torch.manual_seed(0)
        nodes, net = torch.randn(3, 4), torch.nn.Linear(8, 2)
        source, target = torch.tensor([0, 1, 0, 2]), torch.tensor([1, 2, 1, 2])

        def step():
            message = torch.relu(net(torch.cat([nodes[source], nodes[target]], 1)) + 3)
            index = target[:, None].expand_as(message)
            joined = torch.zeros(3, 2).scatter_reduce(0, index, message, "amax", include_self=False)
            joined.square().sum().backward()
            net.zero_grad()

        return step

    found, kinks = verdicts(make, quick=True, steps=3)
    assert found == [Verdict.SMOOTH] * 3
    assert kinks[0] == kinks[1] == kinks[2]
    (place,) = kinks[0]
    assert (place.touched, place.relevant) == (2, 0)
    assert place.choice == "autograd shared the slope equally among both tied elements"


def test_an_entry_that_is_left_out_and_equals_the_result_is_no_formula():
    """Autograd divides by two where the first argument, left out, equals the largest message."""
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    with clarke.audit(lambda _: None) as a:
        start, index = torch.zeros(1, dtype=torch.float64), torch.tensor([0])
        (start.scatter_reduce(0, index, w * 1.0, "amax", include_self=False)).sum().backward()
    assert w.grad == 0.5
    assert a.steps[0].verdict is Verdict.NOT_CLARKE
