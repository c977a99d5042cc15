"""`clarke ops`: every line is measured, and the pieces explain what autograd returns."""

import json

import pytest
import torch
from typer.testing import CliRunner

from clarke import InputError
from clarke.cli import make_app
from clarke.kinks import Hazard, default_registry
from clarke.kinks.conventions import conventions, measure
from clarke.kinks.samples import Sample, samples


@pytest.fixture(scope="module")
def rows():
    return conventions()


def test_one_row_for_each_sample(rows):
    assert len(rows) == len(samples())
    assert len({(r.call, r.kink) for r in rows}) == len(rows)
    assert {r.operation for r in rows} <= set(default_registry().names())


def test_weights_are_convex_and_explain_the_gradient(rows):
    for row in rows:
        if row.hazard is not None:
            continue
        assert sum(row.weights) == pytest.approx(1)
        assert min(row.weights) >= 0
        mixed = [
            sum(w * s for w, s in zip(row.weights, column, strict=True))
            for column in zip(*row.slopes, strict=True)
        ]
        assert row.gradient == pytest.approx(mixed, abs=1e-6), row.call


def test_slopes_are_those_on_either_side(rows):
    """For kinks in one variable: difference quotients of the operation itself."""
    for sample, row in zip(samples(), rows, strict=True):
        if row.hazard is not None or len(row.gradient) != 1:
            continue
        (point,) = sample.inputs[0]
        step = 1e-6
        left, here, right = (
            sample.function(torch.tensor([point + s], dtype=torch.float64)).item()
            for s in (-step, 0.0, step)
        )
        assert row.slopes[0][0] == pytest.approx((here - left) / step, abs=1e-4), row.call
        assert row.slopes[-1][0] == pytest.approx((right - here) / step, abs=1e-4), row.call


def test_known_conventions(rows):
    found = {(r.call, r.kink): r for r in rows}
    assert found["relu(x)", "x = 0"].gradient == (0.0,)
    assert found["abs(x)", "x = 0"].weights == (0.5, 0.5)
    assert not found["abs(x)", "x = 0"].selects
    assert found["sqrt(x)", "x = 0"].hazard is Hazard.INFINITE_SLOPE
    assert found["max(x)", "x[0] = x[2] = x[3]"].weights == pytest.approx((1 / 3,) * 3)
    assert found["max(x, 0)", "x[0] = x[2] = x[3]"].selects


def test_a_sample_off_its_kink_is_refused():
    away = Sample("relu(x)", "x = 1", torch.relu, ((1.0,),))
    with pytest.raises(InputError, match="should touch one kink of one operation; touched: none"):
        measure(away, default_registry())


def run(*arguments):
    return CliRunner().invoke(make_app("ops"), ["ops", *arguments])


def test_table(rows):
    result = run()
    assert result.exit_code == 0
    assert f"torch {torch.__version__}" in result.output
    assert "aten::relu" in result.output


def test_json(rows):
    data = json.loads(run("--json").output)
    assert data["torch"] == torch.__version__
    assert [entry["call"] for entry in data["rows"]] == [r.call for r in rows]


def test_markdown(rows):
    lines = run("--markdown").output.splitlines()
    assert len(lines) == len(rows) + 2
    columns = {line.replace("\\|", "").count("|") for line in lines}
    assert len(columns) == 1
