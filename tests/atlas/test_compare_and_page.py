"""Differences between versions, the generated page, the coverage of PyTorch's database."""

import re
from pathlib import Path

from clarke.atlas import differences, measure_point, points
from clarke.atlas.coverage import Coverage, coverage, coverage_page
from clarke.atlas.page import page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows(*calls):
    return [measure_point(p) for p in points() if p.call in calls]


def test_no_difference_with_itself():
    data = [r.to_dict() for r in rows("relu(x)", "sqrt(x)", "clamp(x, min=0)")]
    assert differences(data, data) == ()


def test_differences_are_named():
    data = [r.to_dict() for r in rows("clamp(x, min=0)", "relu(x)")]
    moved = [{**r, "reverse": [-3.0]} if r["call"] == "clamp(x, min=0)" else r for r in data]
    (change,) = differences(moved, data)
    assert (change.call, change.what, change.before) == ("clamp(x, min=0)", "reverse", [-3.0])
    assert "clamp(x, min=0) at x = 0: reverse [-3.0] -> " in str(change)
    (gone,) = differences(data, data[:1])
    assert gone.after is None
    (new,) = differences(data[:1], data)
    assert new.before is None


def test_page_lists_what_is_wrong():
    text = page(rows("relu(x)", "relu(x) - relu(-x)", "prelu(x, a)"), "9.9")
    assert "torch 9.9" in text
    wrong = text.split("## Not valid")[1].split("##")[0]
    assert "relu(x) - relu(-x)" in wrong
    assert "prelu" not in wrong
    assert "prelu(x, a)" in text.split("disagree")[1]


def test_generated_pages_have_every_point():
    lines = (DOCS / "ops.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == len(points()) + 1
    covered = (DOCS / "ops-coverage.md").read_text(encoding="utf-8")
    share = re.search(r"In (\d+) of them \((\d+\.\d)%\)", covered)
    assert share
    assert float(share[2]) > 95


def test_coverage_of_some():
    found = {c.name: c for c in coverage(["sort", "relu6", "nextafter"])}
    text = coverage_page(tuple(found.values()), "9.9")
    assert found["sort"].covered
    assert not found["nextafter"].covered
    assert found["nextafter"].unknown == ("aten::nextafter.default",)
    assert "`nextafter`: `aten::nextafter.default`" in text
    assert not Coverage("x", 0, ()).covered
