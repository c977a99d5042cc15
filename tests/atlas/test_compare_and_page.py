"""Differences between versions, the generated page, the coverage of PyTorch's database."""

import math
import re
from pathlib import Path

import pytest
import torch

from clarke.atlas import Answer, Effect, Mode, Standing, differences, measure_point, points
from clarke.atlas.coverage import Coverage, coverage, coverage_page
from clarke.atlas.forward import forward_standing
from clarke.atlas.page import differences_page, page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows(*calls):
    return [measure_point(p) for p in points() if p.call in calls]


def test_no_difference_with_itself():
    data = [r.to_dict() for r in rows("relu(x)", "sqrt(x)", "clamp(x, min=0)")]
    assert differences(data, data) == ()


def row(call="f(x)", reverse=(1.0,), standing="LIMITING", forward=(1.0,), forwards="LIMITING"):
    """A row as JSON has it."""
    return {
        "call": call,
        "kink": "x = 0",
        "reverse": list(reverse),
        "standing": standing,
        "forward": None if forward is None else list(forward),
        "forward_standing": None if forward is None else forwards,
    }


def both(value, standing, call="f(x)"):
    return row(call, (value,), standing, (value,), standing)


def test_the_modes_share_a_line_where_they_agree_on_both_sides():
    (change,) = differences([both(1.0, "LIMITING")], [both(0.0, "LIMITING")])
    assert (change.mode, change.effect) == (Mode.BOTH, Effect.VALID)
    assert change.before == Answer((1.0,), Standing.LIMITING)
    assert change.after == Answer((0.0,), Standing.LIMITING)


def test_the_modes_have_lines_of_their_own_where_they_differ():
    apart = row(reverse=(1.0, 0.0), forward=(0.0, 1.0))
    mixed = row(reverse=(0.5, 0.5), standing="CLARKE", forward=(0.5, 0.5), forwards="CLARKE")
    found = differences([apart], [mixed])
    assert [c.mode for c in found] == [Mode.REVERSE, Mode.FORWARD]
    (only,) = differences([apart], [row(reverse=(1.0, 0.0), forward=(1.0, 0.0))])
    assert only.mode is Mode.FORWARD
    (gone,) = differences([row()], [row(forward=None)])
    assert (gone.mode, gone.after, gone.effect) == (Mode.FORWARD, None, Effect.MISSING)


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        ("LIMITING", "CLARKE", Effect.VALID),
        ("WRONG", "CLARKE", Effect.VALIDITY),
        ("GRADIENT", "NONFINITE", Effect.VALIDITY),
        ("FORMULA", "GRADIENT", Effect.VALIDITY),
        ("LIMITING", "NOT_LIPSCHITZ", Effect.VALIDITY),
        ("WRONG", "FORMULA", Effect.INVALID),
        ("NOT_LIPSCHITZ", "INFINITE_VALUE", Effect.INVALID),
        ("FORMULA", "UNDECIDED", Effect.UNDECIDED),
        ("UNDECIDED", "LIMITING", Effect.UNDECIDED),
    ],
)
def test_what_a_change_means(before, after, effect):
    (change,) = differences([both(1.0, before)], [both(1.0, after)])
    assert change.effect is effect


def test_rows_of_one_side_and_the_order():
    before = [
        both(1.0, "WRONG", "neither"),
        both(1.0, "LIMITING", "valid"),
        both(1.0, "LIMITING", "broke"),
        both(1.0, "GRADIENT", "gone"),
        both(math.nan, "NONFINITE", "same"),
    ]
    after = [
        both(0.0, "WRONG", "neither"),
        both(0.0, "CLARKE", "valid"),
        both(0.0, "WRONG", "broke"),
        both("nan", "NONFINITE", "same"),
        both(0.0, "CLARKE", "new"),
    ]
    found = differences(before, after)
    assert [c.call for c in found] == ["broke", "valid", "neither", "new", "gone"]
    assert found[3].before is None
    assert found[4].after is None
    assert all(c.mode is Mode.BOTH for c in found)


def test_page_of_differences():
    changes = differences(
        [both(1.0, "WRONG", "f(|x|)"), row()],
        [both("inf", "NONFINITE", "f(|x|)"), both(0, "WRONG")],
    )
    text = differences_page(changes, "1.0", "2.0")
    assert text.startswith("# What moved from torch 1.0 to 2.0\n")
    assert text.index("## Validity changed") < text.index("## Other answers, valid neither")
    assert "- Validity changed: 1\n- Other answers, valid neither: 1\n" in text
    assert "| f(x) | x = 0 | both | 1 | a limiting gradient | 0 | not valid |" in text
    assert "| f(\\|x\\|) | x = 0 | both | 1 | not valid | inf | NaN or infinite" in text
    assert text.endswith("|\n")
    assert "Nothing moved." in differences_page((), "1.0", "2.0")


def test_measured_rows_say_what_forward_mode_is_worth():
    (plain,) = rows("relu(x)")
    assert plain.forward_standing is plain.standing is Standing.LIMITING
    (other,) = rows("prelu(x, a)")
    assert not other.modes_agree
    assert other.forward_standing is Standing.LIMITING
    assert other.to_dict()["forward_standing"] == "LIMITING"


@pytest.mark.parametrize(
    ("forward", "worth"),
    [
        ((0.5,), Standing.CLARKE),
        ((1.0,), Standing.LIMITING),
        ((1.5,), Standing.WRONG),
        ((math.nan,), Standing.NONFINITE),
    ],
)
def test_what_forward_mode_is_worth(forward, worth):
    """Of relu at 0, whatever torch returns there."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def judged(standing, limits=()):
        def f(x):
            return torch.relu(x).sum()

        return forward_standing(f, (x,), forward, (0.0,), standing, limits)

    assert judged(Standing.LIMITING) is worth
    assert judged(Standing.NOT_LIPSCHITZ) is Standing.NOT_LIPSCHITZ
    assert judged(Standing.FORMULA) is Standing.UNDECIDED
    if worth is not Standing.NONFINITE:
        assert judged(Standing.GRADIENT) is Standing.WRONG
        assert judged(Standing.LIMITING, [forward]) is Standing.LIMITING


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
