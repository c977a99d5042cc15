"""Kinks that are touched and do not matter: decided quickly, as the whole ladder decides them."""

import random

import pytest
import torch
from torch import nn

import clarke
from clarke import Verdict, audit
from clarke.capture import Recorder, collect_trace
from clarke.decide import decide
from clarke.fast import Declined, QuickJudge
from clarke.kinks import default_registry

LADDER = clarke.Settings(quick=False)


def quick(function):
    registry = default_registry()
    with Recorder(registry.keeps, registry.functions) as recorder:
        trace = collect_trace(recorder, function())
    slots = [e.slot for e in trace.leaves()]
    with torch.no_grad():
        return QuickJudge(registry).decide(trace, slots, None)


def audited(function, settings=None):
    """The verdict on one step's gradient, and its argument."""
    with audit(lambda _: None, settings=settings, seconds=None) as watch:
        function().backward()
    return watch.steps[-1].verdict


def ppo(r, a, low=0.8, high=1.2):
    return -torch.min(r * a, r.clamp(low, high) * a).mean()


def test_nothing_clipped_is_no_kink():
    r = torch.tensor([0.9, 1.1, 1.5, 0.5], requires_grad=True)
    a = torch.tensor([1.0, -2.0, 3.0, -1.0])
    assert quick(lambda: ppo(r, a)).verdict is Verdict.SMOOTH
    assert audited(lambda: ppo(r, a)) is audited(lambda: ppo(r, a), LADDER) is Verdict.SMOOTH


@pytest.mark.parametrize("r", [0.8, 1.2])
def test_a_bound_that_is_touched_counts(r):
    r = torch.tensor([r, 1.0], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([1.0, 1.0], dtype=torch.float64)
    assert isinstance(quick(lambda: ppo(r, a)), Declined)
    assert audited(lambda: ppo(r, a)) is audited(lambda: ppo(r, a), LADDER)


def test_equal_values_of_different_functions_are_a_kink():
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    y = torch.tensor([5.0, 5.0], requires_grad=True)
    z = torch.tensor([5.0, 7.0], requires_grad=True)
    assert isinstance(quick(lambda: torch.maximum(x * y, x * z).sum()), Declined)
    one = torch.ones(2, requires_grad=True)
    assert isinstance(quick(lambda: torch.maximum(x * 2 - x, one + x - 1.0).sum()), Declined)


def test_sums_are_compared_by_what_they_add_up_to():
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    old = torch.tensor([1.0, 4.0])
    near = lambda: old + (x - old).clamp(-1.5, 1.5)  # noqa: E731 - a formula
    assert quick(lambda: torch.max((x - 7) ** 2, (near() - 7) ** 2).mean()).verdict is (
        Verdict.SMOOTH
    )


def test_squares_of_squares_take_no_time():
    x = torch.tensor([1.0, 1.0], requires_grad=True)

    def deep():
        y = x
        for _ in range(60):
            y = y * y
        return torch.maximum(y, y.clamp(0.5, 2.0)).sum()

    assert quick(deep).verdict is Verdict.SMOOTH


def _expression(draw, leaves, depth):
    if depth == 0:
        return draw.choice(leaves)
    one = lambda: _expression(draw, leaves, depth - 1)  # noqa: E731 - a short form
    kind = draw.randrange(9)
    if kind == 0:
        a, b = one(), one()
        return lambda: a() + b()
    if kind == 1:
        a, b = one(), one()
        return lambda: a() - b()
    if kind == 2:
        a, b = one(), one()
        return lambda: a() * b()
    if kind in (3, 4):
        a, low = one(), draw.choice([-3, -1, 0, 1])
        high = low + draw.choice([1, 2, 9])
        return lambda: a().clamp(low, high)
    if kind == 5:
        a, b = one(), one()
        return lambda: torch.maximum(a(), b())
    if kind == 6:
        a, b = one(), draw.choice([-3.0, 3.0])
        return lambda: torch.minimum(a(), a().clamp(b - 3, b + 3))
    if kind == 7:
        a, b = one(), draw.choice([0.5, -1.0, 2.0])
        return lambda: torch.add(a(), a(), alpha=b)
    a = one()
    return lambda: a().amax(0, keepdim=True) + a()


def _integers(draw, shape):
    generator = torch.Generator().manual_seed(draw.randrange(10**6))
    return torch.randint(-2, 3, shape, generator=generator).double()


def laddered(function, leaves):
    """The whole ladder's verdict, apart from any audit."""
    registry = default_registry()
    with Recorder(registry.keeps, registry.functions) as recorder:
        value = function()
        trace = collect_trace(recorder, value)
    slots = [e.slot for e in trace.leaves()]
    gradient = torch.autograd.grad(value, [e.tensor for e in trace.leaves()])
    assert {id(e.tensor) for e in trace.leaves()} <= {id(x) for x in leaves}
    return decide(trace, registry, slots, gradient, clarke.Settings()).verdict


@pytest.mark.slow
def test_random_programs_are_judged_as_by_the_ladder_whatever_ran_before():
    """One audit, a program that is edited between steps: operations, shapes, frozen parameters."""
    draw = random.Random(1)  # noqa: S311 - no secret
    quickly = []
    watch = audit(lambda _: None, seconds=None)
    for number in range(60):
        shape = draw.choice([(3,), (2, 2), (1, 3)])
        frozen = draw.randrange(6)
        leaves = [_integers(draw, shape).requires_grad_(i != frozen) for i in range(3)]
        program = _expression(draw, [lambda v=v: v for v in leaves], draw.choice([2, 3]))
        use = leaves[(frozen + 1) % 3]
        result = lambda p=program, u=use: (p() * u).sum()  # noqa: E731 - a formula
        with watch:
            result().backward()
        found = watch.steps[-1]
        expected = laddered(result, leaves)
        if found.theorem == "no relevant kink":
            assert found.verdict is expected is Verdict.SMOOTH, number
            quickly.append(any(k.touched for k in found.kinks))
        else:
            assert found.correct is expected.correct, (number, found.reason, expected)
    assert len(quickly) > 12
    assert sum(quickly) > 1


@pytest.mark.slow
@pytest.mark.parametrize("word", ["amax", "amin"])
@pytest.mark.parametrize("own", [False, True])
def test_messages_that_tie_are_judged_as_by_the_ladder(word, own):
    draw = random.Random(2)  # noqa: S311 - no secret
    verdicts = []
    for _ in range(40):
        x = _integers(draw, (4, 2)).requires_grad_()
        source = torch.tensor([draw.randrange(4) for _ in range(6)])
        target = torch.tensor([draw.randrange(3) for _ in range(6)])
        scale = torch.rand(3, 2, dtype=torch.float64) + 0.5

        def result(x=x, source=source, target=target, scale=scale):
            message, base = (
                x[source] * 1.5,
                torch.full((3, 2), 9.0 if word == "amin" else -9.0).double(),
            )
            index = target[:, None].expand(6, 2)
            joined = base.scatter_reduce(0, index, message, word, include_self=own)
            return (joined * scale).sum()

        with audit(lambda _: None, seconds=None) as watch:
            result().backward()
        expected = laddered(result, [x])
        assert watch.steps[-1].verdict is expected
        verdicts.append(expected)
    assert Verdict.SMOOTH in verdicts
    assert len(set(verdicts)) > 1


def networks():
    torch.manual_seed(0)
    make = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    tell = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 1)).double()
    return make, tell, torch.randn(5, 4, dtype=torch.float64)


def test_a_critic_does_not_depend_on_what_was_detached():
    make, tell, x = networks()
    with audit() as watch:
        for _ in range(3):
            tell(make(x).detach()).mean().backward()
            tell.zero_grad()
    assert [s.verdict for s in watch.steps] == [Verdict.SMOOTH] * 3
    quickly = [not s.culprits and s.theorem == "no relevant kink" for s in watch.steps]
    assert all(quickly)


@pytest.mark.parametrize(
    "detached",
    [
        lambda w: (w * w).detach(),
        lambda w: w.data,
        lambda w: w.detach()[1:].repeat(2),
        lambda w: w.detach().clone().mul_(w.detach()),
        lambda w: (w * 0 + 2).detach() * w.detach(),
    ],
)
def test_what_depends_on_the_variables_is_no_constant(detached):
    w = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)

    def result():
        return (detached(w) * w * (other * 2).detach()).sum()

    with audit(lambda _: None, seconds=None) as watch:
        result().backward()
        w.grad = None
    expected = audited(result, LADDER)
    assert watch.steps[0].verdict is expected


def test_a_frozen_and_an_unfrozen_generator():
    """The detached part is a constant of one call and not of the next."""
    make, tell, x = networks()
    shared = make[2].weight  # in the critic's loss as well, in every other call
    verdicts = []
    with audit(lambda _: None, seconds=None) as watch:
        for number in range(4):
            penalty = (shared * shared).sum() if number % 2 else 0.0
            (tell(make(x).detach()).mean() + penalty).backward()
            make.zero_grad()
            tell.zero_grad()
    verdicts = [s.verdict for s in watch.steps]
    assert verdicts[0] is verdicts[2] is Verdict.SMOOTH
    assert verdicts[1] is verdicts[3] is not Verdict.SMOOTH
