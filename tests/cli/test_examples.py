"""`clarke examples`: every case is judged, and no verdict contradicts what is known of it."""

import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import clarke
from clarke import Verdict
from clarke.cli import make_app
from clarke.cli.examples import judge
from clarke.cli.programs import EXAMPLES
from reference import contains, exact

HALF = Fraction(1, 2)
SIXTH = Fraction(1, 6)
# Extreme points of the Clarke subdifferential, worked out by hand; None: not defined there.
# What is said of variables that the program cuts off (t of bce-with-logits) is left out.
TRUE_SETS = {
    "lemma-2": [[1]],
    "lemma-3": [[SIXTH]],
    "lemma-7": [[1, 0]],
    "two-conventions": [[0]],
    "nested-relus": [[0]],
    "agreeing-relus": [[0], [-1]],
    "empty-p": [[0], [1]],
    "cancelling-abs": [[0]],
    "abs-and-max": [[2, 0], [0, 0], [1, 1], [-1, 1]],
    "two-negatives": [[0, 0], [0, 2], [2, 0], [2, 2]],
    "five-planes": [[0, 0], [2, -5], [3, 2], [2, 5], [3, -2]],
    "nested-max": [[3, 2], [3, -2], [2, 5], [2, -5]],
    "flattened-abs": [[1, -1]],
    "two-clamps": [[1]],
    "arsinh": [[1]],
    "cusp": [[0, 0], [-1, 0]],
    "greedy-pool": [[1, 0, 0], [0, 1, 0]],
    "bce-with-logits": [[HALF]],
    "box-distance": [[1, 0], [0, 1], [-1, 0], [0, -1]],
    "clamp-at-bound": [[0], [1]],
    "guarded-sqrt": [[1]],
    "root-of-abs": None,
    "stuck": [[0], [-1]],
    "rounded": None,
}
MUST_BE_WRONG = {
    "lemma-2", "lemma-3", "lemma-7", "two-conventions", "nested-relus", "two-clamps",
    "bce-with-logits", "greedy-pool",
}  # fmt: skip


@pytest.fixture(scope="module")
def reports():
    return {example.name: judge(example) for example in EXAMPLES}


def entries(report):
    return [float(x) for g in report.gradient for x in g.reshape(-1)]


def is_member(name, values):
    """Whether a gradient lies in the known set, float32 constants of kernels allowed for."""
    rounded = [Fraction(v).limit_denominator(1000) for v in values]
    assert all(abs(float(r) - v) < 1e-6 for r, v in zip(rounded, values, strict=True))
    return contains([exact(p) for p in TRUE_SETS[name]], exact(rounded))


def test_every_example_has_an_entry_in_the_table_of_truth():
    names = [example.name for example in EXAMPLES]
    assert len(set(names)) == len(names)
    # Of the ratio's three gradients one each is on the tie; the set is worked out below.
    assert set(names) == {*TRUE_SETS, "ppo-ratio"}


@pytest.mark.parametrize("name", sorted(set(TRUE_SETS)))
def test_the_verdict_is_true(reports, name):
    report = reports[name]
    if TRUE_SETS[name] is None:
        assert report.verdict is Verdict.NOT_LIPSCHITZ
        return
    if report.verdict is Verdict.NONFINITE:
        assert any(math.isnan(v) for v in entries(report))
        return
    member = is_member(name, entries(report))
    assert not (report.correct is True and not member)
    assert not (report.correct is False and member)
    if report.correct is False and report.element is not None:
        valid = [float(x) for g in report.element for x in g.reshape(-1)]
        assert is_member(name, valid)
    if report.correct:
        assert report.certificate.verify()


@pytest.mark.parametrize("name", sorted(MUST_BE_WRONG))
def test_wrong_gradients_are_wrong_on_this_torch(reports, name):
    """Clamp's convention has moved between versions: then the table of truth still holds."""
    if name == "two-clamps" and entries(reports[name]) == [1.0]:
        pytest.skip("clamp's slopes at its bounds happen to be right on this version")
    assert not is_member(name, entries(reports[name]))
    assert reports[name].verdict is Verdict.NOT_CLARKE
    assert reports[name].culprits


def test_ppo_is_right(reports):
    """Ratio 1 is inside of the clamp: both sides of every minimum have one gradient."""
    report = reports["ppo-ratio"]
    assert report.verdict is Verdict.SMOOTH
    assert entries(report) == pytest.approx([-1 / 3, 1 / 6, -2 / 3])
    assert report.touched == 3


def test_lines_are_those_of_the_programs(reports):
    for example in EXAMPLES:
        file = example.function.__code__.co_filename
        for kink in reports[example.name].kinks:
            assert Path(kink.file).parent == Path(file).parent
    relus = reports["lemma-2"].kinks
    assert relus[0].line == judge_line("lemma-2", "F.relu(w) - F.relu(-w)")


def judge_line(name, text):
    import inspect

    function = next(e.function for e in EXAMPLES if e.name == name)
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def run(*arguments):
    return CliRunner().invoke(make_app("examples"), ["examples", *arguments])


def test_table():
    result = run()
    assert result.exit_code == 1  # wrong gradients were found
    for example in EXAMPLES:
        assert example.name in result.output
    assert "correct" in result.output.splitlines()[-1]


def test_list():
    result = run("--list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == [e.name for e in EXAMPLES]


def test_json():
    result = run("--json")
    data = json.loads(result.output)
    assert [entry["name"] for entry in data] == [e.name for e in EXAMPLES]
    assert {entry["report"]["verdict"] for entry in data} <= set(Verdict.__members__)
    assert data[0]["report"]["gradient"] == [0.0]


def test_one_example():
    result = run("agreeing-relus")
    assert result.exit_code == 0
    assert "BOULIGAND" in result.output
    assert "witness" in result.output
    assert "known_right.py" in result.output


def test_one_wrong_example():
    result = run("lemma-2")
    assert result.exit_code == 1
    assert "WRONG" in result.output


@pytest.mark.slow
def test_strict():
    undecided = next(e.name for e in EXAMPLES if judge(e).correct is None)
    assert run(undecided).exit_code == 0
    assert run(undecided, "--strict").exit_code == 2


def test_unknown_name():
    result = run("lemma-22")
    assert result.exit_code == 2
    assert "Did you mean lemma-2?" in result.output


def test_judging_leaves_no_gradient_behind():
    example = EXAMPLES[0]
    inputs = example.inputs()
    clarke.check(example.function, inputs)
    assert all(x.grad is None for x in inputs)
    assert all(x.dtype == torch.float64 for x in inputs)
