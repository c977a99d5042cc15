"""The reference itself: its methods against each other, against torch, against paper."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference import (
    KNOWN,
    Case,
    Expr,
    Known,
    NotAffineError,
    ad_gradient,
    bouligand,
    bouligand_by_flags,
    bouligand_subset,
    cases,
    cells,
    certainly_differentiable_gradient,
    contains,
    evaluate,
    kink_points,
    line_gradient,
    nearby_gradients,
    programs,
    selections,
    separation,
    strict_direction,
    to_torch,
    touched,
)
from reference.affine import primitive
from reference.build import (
    absolute,
    clamp,
    hardsigmoid,
    largest,
    leaky_relu,
    relu,
    relu6,
    smallest,
    softshrink,
    square,
    variables,
)
from reference.hull import dot
from reference.vias import AbsVia, ClampVia, ExtremumVia, LeakyVia, ReluVia

AFFINE = [known for known in KNOWN if known.affine]
CURVED = [known for known in KNOWN if not known.affine]
TINY = Fraction(1, 2**20)

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
any_case = st.sampled_from([(1, 4), (2, 4), (3, 5), (4, 4)]).flatmap(lambda size: cases(*size))
polynomial_case = st.sampled_from([(1, 3), (2, 4), (3, 4)]).flatmap(
    lambda size: cases(*size, polynomial=True)
)


def name(known: Known) -> str:
    return known.name


def torch_value(expr: Expr, point) -> Fraction:
    x = torch.tensor([float(entry) for entry in point], dtype=torch.float64)
    return Fraction(to_torch(expr)(x).item())


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", AFFINE, ids=name)
def test_known_set_is_computed(known: Known):
    assert bouligand(known.expr, known.point) == known.bouligand
    assert bouligand_by_flags(known.expr, known.point) == known.bouligand


@pytest.mark.parametrize("known", KNOWN, ids=name)
def test_known_set_is_found_along_curves(known: Known):
    assert frozenset(bouligand_subset(known.expr, known.point)) == known.bouligand


@pytest.mark.parametrize("known", KNOWN, ids=name)
def test_known_set_is_the_limit_of_nearby_gradients(known: Known):
    near = [gradient for _, gradient in nearby_gradients(known.expr, known.point)]
    rounded = {tuple(round(entry, 3) for entry in gradient) for gradient in near}
    expected = {tuple(round(entry, 3) for entry in gradient) for gradient in known.bouligand}
    assert rounded == expected


@pytest.mark.parametrize("known", [known for known in KNOWN if known.ad], ids=name)
def test_known_answer_of_autograd(known: Known):
    assert ad_gradient(known.expr, known.point) == known.ad


def test_table_has_wrong_answers_and_right_ones():
    verdicts = Counter(known.correct for known in KNOWN)
    assert verdicts[True] >= 8
    assert verdicts[False] >= 8
    assert verdicts[None] == 1


@pytest.mark.parametrize("known", CURVED, ids=name)
def test_affine_method_refuses_polynomials(known: Known):
    with pytest.raises(NotAffineError, match="not affine"):
        bouligand(known.expr, known.point)


def test_many_kinks_in_three_variables():
    random = Random(0)  # noqa: S311
    inputs = variables(3)
    total: Expr = inputs[0]
    normals = set()
    for _ in range(12):
        row = primitive([random.randint(-9, 9) for _ in inputs])
        normals.add(max(row, tuple(-a for a in row)))
        total = total + absolute(sum(a * x for a, x in zip(row, inputs, strict=True)))
    # In general position m planes through the origin of R^3 make m(m - 1) + 2 cells.
    m = len(normals)
    assert len(bouligand(total, [0, 0, 0])) == m * (m - 1) + 2


# --- translation ---------------------------------------------------------------------------------


def spellings() -> list[Expr]:
    x, y = variables(2)
    found: list[Expr] = [relu(x + y, via) for via in ReluVia]
    found += [absolute(x - y, via) for via in AbsVia]
    found += [clamp(x + y, -1, 1, via) for via in ClampVia]
    found += [
        clamp(x, lo, hi, via)
        for lo, hi in ((0, None), (None, 1))
        for via in (ClampVia.CLAMP, ClampVia.MIN_MAX)
    ]
    found += [leaky_relu(x, slope, via) for slope in (Fraction(1, 4), -1) for via in LeakyVia]
    found += [make([x, y, 0, x - y], via) for make in (largest, smallest) for via in ExtremumVia]
    found += [relu6(3 * x), softshrink(x - y, 1), 6 * hardsigmoid(2 * x + 1)]
    found += [square(x) * y - 3, 1 - x * (2 + y), -x - 1]
    return found


@pytest.mark.parametrize("expr", spellings(), ids=repr)
def test_every_spelling_is_the_same_function_in_torch(expr: Expr):
    smooth_points = 0
    for point in product([-2, -1, Fraction(-1, 2), 0, 1, Fraction(3, 2)], repeat=2):
        assert torch_value(expr, point) == pytest.approx(evaluate(expr, point), abs=1e-12)
        gradient = certainly_differentiable_gradient(expr, point)
        if gradient is not None and not touched(expr, point):
            smooth_points += 1
            # torch 2.13 rounds hardsigmoid's slope 1/6 to float32, in float64 too.
            tolerance = 1e-6 if "HARDSIGMOID" in repr(expr) else 1e-12
            assert ad_gradient(expr, point) == pytest.approx(gradient, abs=tolerance)
    assert smooth_points > 5


@quick
@given(any_case | polynomial_case)
def test_torch_evaluates_generated_programs_without_rounding(case: Case):
    assert torch_value(case.expr, case.point) == evaluate(case.expr, case.point)


# --- the exact sets ------------------------------------------------------------------------------


@quick
@given(st.sampled_from([(1, 4), (2, 3)]).flatmap(lambda size: cases(*size)))
def test_two_exact_methods_agree(case: Case):
    assert case.bouligand == bouligand_by_flags(case.expr, case.point)


@settings(quick, max_examples=10)
@given(cases(3, 2))
def test_two_exact_methods_agree_in_three_variables(case: Case):
    if len(selections(case.expr, case.point)) <= 8:
        assert case.bouligand == bouligand_by_flags(case.expr, case.point)


@quick
@given(any_case, st.integers(0, 2**20))
def test_random_directions_find_only_elements(case: Case, seed: int):
    assert case.bouligand.issuperset(bouligand_subset(case.expr, case.point, 60, seed))


@quick
@given(any_case)
def test_every_cell_is_real(case: Case):
    value = evaluate(case.expr, case.point)
    for cell in cells(case.expr, case.point):
        direction = primitive(cell.direction)
        assert all(dot(row, direction) > 0 for row in cell.rows)
        assert line_gradient(case.expr, case.point, direction) == cell.gradient
        # Small enough for any cell: the function is linear along the whole step.
        step = TINY**2 / max(map(abs, direction))
        near = [p + step * d for p, d in zip(case.point, direction, strict=True)]
        assert certainly_differentiable_gradient(case.expr, near) == cell.gradient
        assert evaluate(case.expr, near) - value == step * dot(cell.gradient, direction)


@quick
@given(any_case)
def test_autograd_agrees_inside_cells(case: Case):
    for cell in cells(case.expr, case.point):
        direction = primitive(cell.direction)
        near = [p + TINY * d / 2**10 for p, d in zip(case.point, direction, strict=True)]
        if max(map(abs, direction)) < 2**10:
            # Of three tied elements autograd adds up thirds, which are rounded.
            found = zip(ad_gradient(case.expr, near), cell.gradient, strict=True)
            assert all(abs(a - b) <= 1e-12 * max(1, abs(b)) for a, b in found)


@quick
@given(any_case | polynomial_case)
def test_selections_are_a_superset(case: Case):
    upper = {selection.gradient for selection in selections(case.expr, case.point)}
    assert upper.issuperset(bouligand_subset(case.expr, case.point, 40))


@quick
@given(polynomial_case)
def test_nearby_gradients_tend_to_selections(case: Case):
    limits = {selection.gradient for selection in selections(case.expr, case.point)}
    for offset, gradient in nearby_gradients(case.expr, case.point, 4):
        near = [p + c for p, c in zip(case.point, offset, strict=True)]
        assert gradient == certainly_differentiable_gradient(case.expr, near)
        # Coefficients of these programs are below 2^16, and so is the gradients' rate of change.
        assert any(
            max(abs(a - b) for a, b in zip(gradient, limit, strict=True))
            <= 2**16 * max(map(abs, offset))
            for limit in limits
        )


@quick
@given(polynomial_case, st.lists(st.integers(-15, 15), min_size=3, max_size=3))
def test_autograd_agrees_beside_polynomial_kinks(case: Case, offset):
    # Sixteenths, at degree four at most: float64 does not round.
    near = [p + Fraction(k, 16) for p, k in zip(case.point, offset, strict=False)]
    assert torch_value(case.expr, near) == evaluate(case.expr, near)
    gradient = certainly_differentiable_gradient(case.expr, near)
    if gradient is not None:
        assert ad_gradient(case.expr, near) == gradient


# --- convex hulls --------------------------------------------------------------------------------

vectors = st.integers(1, 4).flatmap(
    lambda size: st.lists(
        st.lists(st.fractions(-5, 5, max_denominator=4), min_size=size, max_size=size),
        min_size=2,
        max_size=7,
    )
)


@quick
@given(vectors, st.data())
def test_hull_contains_combinations(vertices, data: st.DataObject):
    weights = data.draw(
        st.lists(st.integers(0, 5), min_size=len(vertices), max_size=len(vertices)).filter(any)
    )
    total = sum(weights)
    mean = [
        Fraction(sum(w * v[k] for w, v in zip(weights, vertices, strict=True)), 1) / total
        for k in range(len(vertices[0]))
    ]
    assert contains(vertices, mean)


@quick
@given(vectors)
def test_separation_separates(vertices):
    point, *others = vertices
    normal = separation(others, point)
    if normal is None:
        assert contains(others, point)
    else:
        assert all(dot(normal, vertex) > dot(normal, point) for vertex in others)


@quick
@given(vectors)
def test_gordan_alternative(rows):
    size = len(rows[0])
    direction = strict_direction(rows, size)
    if direction is None:
        assert contains(rows, [0] * size)
    else:
        assert all(dot(row, direction) > 0 for row in rows)
        assert not contains(rows, [0] * size)


def test_hull_at_its_boundary():
    square_vertices = [(0, 0), (0, 2), (2, 0), (2, 2)]
    assert contains(square_vertices, (1.0, 2.0))
    assert contains(square_vertices, (0, 0))
    assert not contains(square_vertices, (1.0, 2.0 + 2**-50))
    with pytest.raises(ValueError, match="hull of no points"):
        contains([], (0,))


# --- the strategies ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"native": True}, {"nested": False}], ids=str)
def test_generated_cases_are_interesting(options):
    counts: Counter[str] = Counter()

    @settings(quick, max_examples=200, derandomize=True, database=None)
    @given(st.sampled_from([(1, 3), (2, 4), (3, 5)]).flatmap(lambda s: cases(*s, **options)))
    def collect(case: Case):
        elements = case.bouligand
        answer = ad_gradient(case.expr, case.point)
        counts["all"] += 1
        counts["touched"] += bool(case.touched)
        counts["several"] += len(elements) > 1
        counts["mixed"] += answer not in elements and contains(elements, answer)
        counts["wrong"] += not contains(elements, answer)

    collect()
    assert counts["touched"] >= 0.6 * counts["all"]
    assert counts["several"] >= 0.2 * counts["all"]
    assert counts["mixed"] >= 0.05 * counts["all"]
    assert counts["wrong"] >= 0.05 * counts["all"]


def test_polynomial_programs_are_often_not_affine():
    counts: Counter[bool] = Counter()

    @settings(quick, max_examples=100, derandomize=True, database=None)
    @given(cases(2, 4, polynomial=True))
    def collect(case: Case):
        try:
            bouligand(case.expr, case.point)
        except NotAffineError:
            counts[True] += 1
        else:
            counts[False] += 1

    collect()
    assert counts[True] >= 30


@quick
@given(st.data())
def test_points_of_a_given_program(data: st.DataObject):
    program = data.draw(programs(2, 4))
    point = data.draw(kink_points(program, 2))
    assert len(point) == 2
    assert bouligand(program, point)
