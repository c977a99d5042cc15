"""Large programs: many kinks that are one, that have nothing to do with each other, or add up."""

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d, relu

import clarke
from clarke import Limits, Settings, Verdict
from clarke.decide.apart import OneWay
from reference.forgery import altered
from reference.leaves import zeros

NO_ENUMERATION = Settings(exact=Limits(kinks=0))


def whole(*shape, seed=0, most=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, shape, generator=generator).to(torch.float64)


def wrong(report, theorem="outer estimate"):
    assert report.verdict is Verdict.NOT_CLARKE, str(report)
    assert report.theorem == theorem
    assert report.certificate.verify()


def right(report, *theorems):
    assert report.correct, str(report)
    assert not theorems or report.theorem in theorems
    assert report.certificate.verify()


def by_hand(h, slope=0.1):
    return relu(h) - slope * relu(-h)


# ---------------------------------------------------------------- kinks with one switching function


@pytest.mark.parametrize("activation", [by_hand, lambda h: relu(2 * h) - 0.3 * relu(-3 * h)])
def test_leaky_relu_by_hand_in_a_network_that_starts_at_zero(activation):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1)]
    for p in (*layers[0].parameters(), layers[1].bias):
        nn.init.zeros_(p)
    x = torch.randn(5, 4)
    leaves = tuple(p for layer in layers for p in layer.parameters())

    def loss(*_):
        h = activation(layers[1](activation(layers[0](x))))
        return layers[2](h).pow(2).sum()

    report = clarke.check(loss, leaves)
    wrong(report)
    # Slope 0 is no mean of the slopes: the valid element has others.
    assert any(bool((e != g).any()) for e, g in zip(report.element, report.gradient, strict=True))


def test_the_same_kink_many_times():
    # 30 copies of h = |x| - |x|, recorded apart.
    def f(x):
        return sum((relu(x) * k - relu(-x) * k).sum() for k in range(1, 31))

    report = clarke.check(f, (zeros(1),))
    wrong(report)
    assert report.element[0].item() == pytest.approx(sum(range(1, 31)))


def test_kinks_that_only_look_alike_at_the_point_stay_apart():
    # Where -u² < y < 0 both are 0: so is the slope in y, and AD's 0 is right.
    def f(y, u):
        return sum(k * (relu(y) - relu(-y - u * u)) for k in range(1, 12)).sum()

    report = clarke.check(f, (zeros(1), zeros(1)), settings=NO_ENUMERATION)
    assert report.verdict is not Verdict.NOT_CLARKE


def test_kinks_that_differ_by_a_small_term_stay_apart():
    # Of s and s + y no point gives slope 0 in x, but the second term has a sign of its own.
    def f(x, y):
        return sum(k * (relu(1e10 * x) - relu(-1e10 * x - y)) for k in range(1, 12)).sum()

    report = clarke.check(f, (zeros(1), zeros(1)), settings=NO_ENUMERATION)
    assert report.verdict is not Verdict.NOT_CLARKE


def test_first_order_excludes_nothing_for_the_estimate():
    # max(0, y² - max(0, x)) has (-1, 0) in its set, from where 0 < x < y².
    def f(x, y):
        return sum(relu(y * y - relu(x)) for _ in range(20)).sum()

    report = clarke.check(f, (zeros(1), zeros(1)), settings=NO_ENUMERATION)
    assert report.verdict is not Verdict.NOT_CLARKE


# ---------------------------------------------------------------- independent of each other


def test_a_wrong_one_beside_a_network():
    torch.manual_seed(0)
    c, x = torch.randn(256, dtype=torch.float64), torch.randn(8, dtype=torch.float64)

    def f(w, a, b):
        return (relu(w) - relu(-w)).sum() + (c * relu(a @ x + b)).sum()

    report = clarke.check(f, (zeros(1), zeros(256, 8), zeros(256)))
    wrong(report)
    assert report.element[0].item() == 1.0


def test_a_wrong_one_beside_kinks_that_nothing_is_known_of():
    samples, c = whole(4, 8), torch.randn(64, dtype=torch.float64)

    def f(w, a):
        return (relu(w) - relu(-w)).sum() + (c * (samples @ a.T).abs()).sum()

    wrong(clarke.check(f, (zeros(1), zeros(64, 8))))


def test_a_part_that_only_enumeration_refutes_beside_a_network():
    # relu(x) + relu(y) - relu(-x - y): AD's three zeros are active nowhere, and its gradient 0 is
    # outside of the hull of the six that are, though not of that of all eight choices.
    c, x = torch.randn(64, dtype=torch.float64), torch.randn(8, dtype=torch.float64)

    def f(v, a):
        three = relu(v[0]) + relu(v[1]) - relu(-v[0] - v[1])
        return three + (c * relu(a @ x)).sum()

    report = clarke.check(f, (zeros(2), zeros(64, 8)))
    wrong(report, "exact enumeration")
    assert float(report.element[0].sum()) >= 1


def test_wide_and_wrong_in_every_entry():
    report = clarke.check(lambda x: (relu(x) - relu(-x)).sum(), (zeros(20_000),))
    wrong(report)
    assert bool((report.element[0] == 1).all())


@pytest.mark.parametrize("large", [1.0, 1e8, 1e10])
def test_wide_and_wrong_beside_a_large_entry(large):
    def f(x):
        return large * x[0] + (relu(x[1:]) - relu(-x[1:])).sum()

    report = clarke.check(f, (zeros(31),))
    wrong(report)
    assert bool((report.element[0][1:] == 1).all())

    def g(u, x):
        return large * u.sum() + (relu(x) - relu(-x)).sum()

    wrong(clarke.check(g, (zeros(1), zeros(30))))


def test_wide_and_right():
    right(clarke.check(lambda x: (relu(x) + 2 * relu(-x)).sum(), (zeros(2_000),)))


def boxes(count):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(count, 2, dtype=torch.float64, generator=generator)
    size = 0.5 + torch.rand(count, 2, dtype=torch.float64, generator=generator)
    return torch.cat([low, low + size], 1)


@pytest.mark.parametrize("count", [1, 16, 64, 200])
def test_generalised_intersection_over_union_of_boxes_equal_to_their_targets(count):
    target = boxes(count)

    def area(low, high):
        size = (high - low).clamp(min=0)
        return size[:, 0] * size[:, 1]

    def loss(p):
        inside = area(
            torch.maximum(p[:, :2], target[:, :2]), torch.minimum(p[:, 2:], target[:, 2:])
        )
        union = area(p[:, :2], p[:, 2:]) + area(target[:, :2], target[:, 2:]) - inside
        hull = area(torch.minimum(p[:, :2], target[:, :2]), torch.maximum(p[:, 2:], target[:, 2:]))
        return (1 - inside / union + (hull - union) / hull).sum()

    report = clarke.check(loss, (target.clone().requires_grad_(),))
    right(report)
    assert report.verdict is Verdict.CLARKE


# ---------------------------------------------------------------- sums of pieces that bend one way


@pytest.mark.parametrize("size", [3, 6, 24])
def test_total_variation_of_a_constant_image(size):
    def variation(x):
        return (x[1:] - x[:-1]).abs().sum() + (x[:, 1:] - x[:, :-1]).abs().sum()

    report = clarke.check(
        variation, (torch.ones(size, size, dtype=torch.float64).requires_grad_(),)
    )
    right(report)
    assert report.verdict is Verdict.CLARKE


@pytest.mark.parametrize("largest", [torch.max, torch.amax, lambda x: -torch.min(-x)])
def test_the_largest_of_many_equal_entries(largest):
    report = clarke.check(largest, (zeros(1_000),))
    right(report)
    assert report.gradient[0].sum().item() == pytest.approx(1)


def warping(costs, least):
    n = len(costs)
    best = {}
    for i in range(n):
        for j in range(n):
            before = [best[k] for k in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if k in best]
            best[i, j] = costs[i, j] + (least(torch.stack(before)) if before else 0)
    return best[n - 1, n - 1]


LEAST = torch.min, torch.amin, lambda x: torch.min(x, 0).values


@pytest.mark.parametrize(
    ("least", "size"),
    [
        *((least, 3) for least in LEAST),
        (torch.amin, 6),
        *(pytest.param(least, 6, marks=pytest.mark.slow) for least in (LEAST[0], LEAST[2])),
    ],
)
def test_dynamic_time_warping_of_equal_costs(least, size):
    right(clarke.check(lambda c: warping(c, least), (zeros(size, size),)))


def test_dynamic_time_warping_of_equal_series():
    def distance(x, y):
        return warping((x[:, None] - y[None, :]).abs(), torch.min)

    right(clarke.check(distance, (zeros(6), zeros(6))))


@pytest.mark.parametrize("size", [6, 60])
def test_windows_of_a_constant_image(size):
    right(clarke.check(lambda x: max_pool2d(x[None, None], 3, 1, 1).sum(), (zeros(size, size),)))


def test_sums_of_convex_pieces():
    a, b, c = whole(300, 20), whole(300, 5), torch.rand(100, dtype=torch.float64)
    right(clarke.check(lambda x: (a @ x).abs().sum(), (zeros(20),)))
    right(clarke.check(lambda x: (b @ x).abs().sum(), (zeros(5),)))
    right(clarke.check(lambda x: relu(a @ x).sum(), (zeros(20),)))
    d = whole(100, 4, 20)
    right(clarke.check(lambda x: (c * (d @ x).max(1).values).sum(), (zeros(20),)))
    right(clarke.check(lambda x: -(c * (d @ x).max(1).values).sum(), (zeros(20),)))


def test_hinges_all_at_their_margin():
    rows = whole(200, 6)
    point = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    offsets = rows @ point
    right(
        clarke.check(lambda w: relu(offsets - rows @ w).mean(), (point.clone().requires_grad_(),))
    )


def test_a_difference_of_convex_sums_on_the_same_variables_is_not_taken_for_regular():
    # sum |x| - sum |x|, through different operations: AD says 0 here and is right; with halves of
    # different conventions it is not.
    def f(x):
        return (relu(x) + relu(-x) - x.abs()).sum()

    report = clarke.check(f, (zeros(50),))
    right(report)

    def g(x):  # |x| - |x| + x, by pieces of which AD takes 0, 0 and the mean
        return (2 * relu(x) - x.abs()).sum()

    wrong(clarke.check(g, (zeros(50),)))


def test_a_forged_proof_fails():
    def right_one(x):
        return (x[1:] - x[:-1]).abs().sum() + x.max()

    proof = clarke.check(right_one, (zeros(40),)).certificate
    assert proof.verify()
    if isinstance(proof.argument, OneWay):
        assert not altered(proof, gradient=tuple(g + 1 for g in proof.gradient)).verify()
        assert not altered(proof, shares=1 - proof.argument.shares).verify()
        assert not altered(proof, shares=proof.argument.shares[:-1]).verify()
    refuted = clarke.check(lambda x: (relu(x) - relu(-x)).sum(), (zeros(40),)).certificate
    assert refuted.verify()
    assert not altered(refuted, gradient=tuple(g + 1 for g in refuted.gradient)).verify()
    assert not altered(refuted, direction=-refuted.argument.direction).verify()
    assert not altered(refuted, direction=refuted.argument.direction[:-1]).verify()
