"""What the plugin records, how two records are compared, and what failing tests say."""

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest

from clarke.cli import main
from clarke.errors import InputError
from clarke.report.suites import compare_suites, read_suite

pytest_plugins = ["pytester"]

SUITE = """
    import os, pytest, torch

    NEW = bool(os.environ.get("NEW"))

    def clip(x):
        return torch.maximum(x, 0 * x) if NEW else torch.clamp(x, min=0)

    def leaf(*values):
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    def test_changes():
        clip(leaf(0.0, 1.0)).sum().backward()

    def test_becomes_right():
        x = leaf(0.0)
        (clip(x) - clip(-x) if NEW else torch.relu(x) - torch.relu(-x)).sum().backward()

    def test_stays():
        leaf(1.0).sin().sum().backward()

    def test_long():
        x = leaf(*range(-100, 101))
        (clip(x) * torch.arange(201)).sum().backward()

    def test_more_calls():
        for _ in range(1 + NEW):
            leaf(1.0).exp().sum().backward()
"""


def record(pytester, name, **environment):
    pytester.makepyfile(test_suite=textwrap.dedent(SUITE))
    words = ("-p", "pytest_clarke", "-p", "no:xdist", "-p", "no:cacheprovider", "-q")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--clarke-record", name],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_two_records_are_compared(pytester, monkeypatch, capsys):
    first = record(pytester, "old.json")
    assert "5 gradients of 5 tests written to old.json" in first.stdout
    record(pytester, "new.json", NEW="1")

    def reported(*words):
        with pytest.raises(SystemExit):
            main(["report", "old.json", "new.json", *words])
        return capsys.readouterr().out

    monkeypatch.chdir(pytester.path)
    monkeypatch.setenv("COLUMNS", "120")
    said = reported()
    flat = " ".join(said.split())
    assert "5 tests in both" in flat
    assert "4 changed (3 in a gradient, 3 in a verdict)" in flat
    assert "[0] 1 [0] 0.5" in flat
    assert "WRONG" in flat
    assert "test_more_calls: another number of backward calls" in flat
    assert "test_becomes_right: failed before, passed after" in flat
    assert "test_stays" not in flat
    assert max(map(len, said.splitlines())) <= 120
    found = json.loads(reported("--json"))
    (changes,) = [c for c in found["changes"] if c["test"].endswith("test_changes")]
    assert changes["values"] == ["[0] 1", "[0] 0.5"]
    assert changes["verdicts"] == ["correct (Bouligand)", "correct (Clarke)"]
    long = [c for c in found["changes"] if c["test"].endswith("test_long")]
    assert "float64 <201>, of length" in long[0]["values"][0]
    same = compare_suites(*[read_suite(pytester.path / "old.json")] * 2)
    assert same.answer.endswith("no gradient and no verdict changed.")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no file of gradients"):
        read_suite(tmp_path / "nothing.json")
    (tmp_path / "x.json").write_text('{"clarke_suite": 2}')
    with pytest.raises(InputError, match="newer version"):
        read_suite(tmp_path / "x.json")


FAILING = """
    import clarke, pytest, torch
    from clarke.testing import assert_no_wrong_gradient, gradcheck

    def wrong(x):
        return (torch.relu(x) - torch.relu(-x)).sum()

    def leaf():
        return torch.zeros(2, dtype=torch.float64, requires_grad=True)

    @pytest.mark.clarke
    def test_marked(): wrong(leaf()).backward()

    @pytest.mark.clarke
    def test_nan():
        (leaf() ** 2).sum().sqrt().backward()

    @pytest.mark.clarke(nonfinite=True)
    def test_nan_allowed():
        (leaf() ** 2).sum().sqrt().backward()

    def test_checked():
        clarke.check(wrong, (leaf(),), raise_exception=True)

    def test_gradcheck():
        gradcheck(wrong, (leaf(),))

    def test_hunted():
        assert_no_wrong_gradient(wrong, (leaf() + 1).detach().requires_grad_(), seconds=3)

    @pytest.mark.clarke
    def test_ignored():
        wrong(leaf()).backward()  # clarke: ignore - shown elsewhere
"""


def fails(pytester, suite, *words):
    pytester.makepyfile(test_suite=textwrap.dedent(suite))
    words = ("-p", "pytest_clarke", "-p", "no:xdist", "-p", "no:cacheprovider", "-rf", *words)
    result = pytester.runpytest_subprocess(*words, timeout=120)
    return result.stdout.str()


@pytest.mark.slow
def test_the_short_summary_says_what_and_where(pytester, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = fails(pytester, FAILING)
    assert "; 1 not counted by # clarke: ignore on 1 line" in said
    summary = dict(re.findall(r"^FAILED \S+::(\w+)(?: - (.*))?$", said, re.MULTILINE))
    assert set(summary) == {
        "test_marked",
        "test_nan",
        "test_checked",
        "test_gradcheck",
        "test_hunted",
    }
    assert (
        "WRONG: gradient at test_suite.py:11; both relus at test_suite.py:5"
        in (summary["test_marked"])
    )
    assert "returned 0, right 1 for entry [0]" in summary["test_marked"]
    assert (
        "NaN or infinity: gradient at test_suite.py:15; sqrt at test_suite.py:15"
        in (summary["test_nan"])
    )
    for name in ("test_checked", "test_hunted"):
        assert "wrong gradient: both relus at test_suite.py:5" in summary[name]
    assert "wrong gradient, at a kink: both relus at test_suite.py:5" in summary["test_gradcheck"]
    # Every traceback ends in the user's file.
    ends = re.findall(r"^(\S+\.py):\d+: \w+Error$|^(\S+\.py):\d+: $", said, re.MULTILINE)
    assert ends
    assert {a or b for a, b in ends} == {"test_suite.py"}


def test_nonfinite_gradients_may_be_allowed(pytester):
    said = fails(pytester, FAILING, "--clarke-allow-nonfinite", "-k", "nan")
    assert "2 passed" in said


def test_strict_says_that_nothing_was_judged(pytester):
    said = fails(pytester, "def test_plain(): pass", "--clarke-strict")
    assert "no gradient was judged: add --clarke, or mark tests" in said
