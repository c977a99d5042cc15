"""The checker without clarke against clarke and against exact sets, on random programs."""

from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from clarke import Verdict
from reference import (
    ad_gradient,
    bouligand_subset,
    cases,
    contains,
    line_gradient,
    selections,
    to_torch,
)
from reference.proofs import CHECKED, REJECTED, forged, independent, opened, own, recorded

EVERY = list(HealthCheck)
KEPT = ("slot", "memory", "touched", "code", "constants", "point")
SMALL = st.sampled_from((0, 0, 1, -1, 2, -2, Fraction(1, 2), 3, -3, 5, 7))


def leaf(point):
    return torch.tensor([float(p) for p in point], dtype=torch.float64, requires_grad=True)


@pytest.mark.slow
def test_both_programs_check_what_clarke_proves(tmp_path):
    seen = Counter()

    @settings(max_examples=40, suppress_health_check=EVERY, deadline=None)
    @given(cases())
    def run(case):
        report = clarke.check(to_torch(case.expr), (leaf(case.point),))
        if report.certificate is None:
            return
        path = report.save(tmp_path / "one.clarke")
        assert own(path)[0] == CHECKED
        status, why = independent(path)
        assert status != REJECTED, why
        seen[report.verdict, status == CHECKED] += 1
        seen[status == CHECKED] += 1

    run()
    for verdict in (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE, Verdict.NOT_CLARKE):
        assert seen[verdict, True] > 0
    assert seen[False] <= 0.1 * seen[True], seen


@pytest.fixture
def false_claims(tmp_path):
    """Forges, of a file, a claim of any kind about any vector with any direction."""

    def write(path, verdict, vector, direction):
        content, tensors = opened(path)
        kept = {k: v for k, v in tensors.items() if k.startswith(KEPT)}
        kept["gradient.0"] = vector
        content["verdict"] = verdict
        if verdict == "NOT_CLARKE":
            content["claim"] = {"kind": "separation", "part": []}
            kept["direction"] = direction
        else:
            content["claim"] = {"kind": "witnesses", "weights": [1.0], "finest": 1e-6}
            kept["witness.0.direction.0"] = direction
            kept["witness.0.gradient.0"] = vector
            kept["witness.0.selection"] = torch.zeros((0, 2), dtype=torch.int64)
        return forged(tmp_path / "forged.clarke", content, kept)

    return write


def test_nothing_false_is_checked_whatever_the_file_says(tmp_path, false_claims):
    seen = Counter()

    @settings(max_examples=25, suppress_health_check=EVERY, deadline=None, derandomize=True)
    @given(cases(), st.data())
    def run(case, data):
        path = recorded(tmp_path / "one.clarke", to_torch(case.expr), leaf(case.point))
        exact = sorted(case.bouligand)
        gradient = ad_gradient(case.expr, case.point)
        size = len(case.point)
        for _ in range(4):
            vector = data.draw(st.sampled_from([*exact, gradient]))
            if data.draw(st.booleans()):
                vector = tuple(v + data.draw(SMALL) for v in vector)
            direction = leaf([data.draw(SMALL) for _ in range(size)]).detach()
            for verdict in ("SMOOTH", "BOULIGAND", "NOT_CLARKE"):
                wrong = false_claims(path, verdict, leaf(vector).detach(), direction)
                status, why = independent(wrong)
                true = {
                    "SMOOTH": exact == [tuple(vector)],
                    "BOULIGAND": tuple(vector) in exact,
                    "NOT_CLARKE": not contains(exact, tuple(vector)),
                }[verdict]
                assert true or status != CHECKED, (verdict, vector, direction, why)
                seen[verdict, true, status] += 1

    run()
    for verdict in ("SMOOTH", "BOULIGAND", "NOT_CLARKE"):
        assert seen[verdict, True, CHECKED] > 0, seen
        assert seen[verdict, False, REJECTED] > 0, seen


def test_nothing_false_is_checked_of_curved_programs(tmp_path, false_claims):
    """Where switching functions curve, first-order rows exclude nothing."""
    seen = Counter()

    @settings(max_examples=25, suppress_health_check=EVERY, deadline=None, derandomize=True)
    @given(cases(polynomial=True), st.data())
    def run(case, data):
        path = recorded(tmp_path / "one.clarke", to_torch(case.expr), leaf(case.point))
        inside = list(bouligand_subset(case.expr, case.point, 60))
        outside = {cell.gradient for cell in selections(case.expr, case.point)}
        if not inside:
            return
        for _ in range(3):
            vector = data.draw(st.sampled_from(inside))
            direction = [data.draw(SMALL) for _ in case.point]
            along = line_gradient(case.expr, case.point, direction)
            vector = along if along is not None and data.draw(st.booleans()) else vector
            moved = tuple(v + data.draw(SMALL) for v in vector)
            for verdict in ("SMOOTH", "BOULIGAND", "NOT_CLARKE"):
                for claimed in (vector, moved):
                    d = leaf(direction).detach()
                    status, why = independent(
                        false_claims(path, verdict, leaf(claimed).detach(), d)
                    )
                    seen[verdict, status] += 1
                    if status != CHECKED:
                        continue
                    if verdict == "NOT_CLARKE":
                        assert not contains(inside, claimed), why
                    else:
                        assert claimed in outside
                        assert along is None or claimed == along
                    if verdict == "SMOOTH":
                        assert set(inside) == {claimed}

    run()
    assert seen["NOT_CLARKE", CHECKED] > 0, seen
    assert seen["BOULIGAND", CHECKED] > 0, seen
