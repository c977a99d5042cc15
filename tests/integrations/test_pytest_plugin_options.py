"""The plugin's budget, its reasons, its baseline, and torch's own gradcheck in a judged test."""

import json
import re
import textwrap

import pytest

pytest_plugins = ["pytester"]

SUITE = """
    import pytest, torch

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()
        @staticmethod
        def backward(ctx, grad):
            return grad

    def leaf():
        return torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def wrong():
        x = leaf()
        (x.relu() - (-x).relu()).sum().backward()

    def test_wrong(): wrong()

    def test_surrogate():
        for _ in range(3):
            Own.apply(leaf() + 0.2).sum().backward()

    def test_torchs_own():
        x = leaf()
        assert torch.autograd.gradcheck(lambda x: x.sin() * x, (x,))
        assert torch.autograd.gradgradcheck(lambda x: x.sin() * x, (x,))

    @pytest.mark.clarke(budget=1e-9)
    def test_no_time():
        leaf().sin().sum().backward()
        wrong()
"""


def run(pytester, *words):
    pytester.makepyfile(test_suite=textwrap.dedent(SUITE))
    words = ("-p", "pytest_clarke", "-p", "no:xdist", "-p", "no:cacheprovider", "-rA", *words)
    result = pytester.runpytest_subprocess(*words, timeout=120)
    failed = set(re.findall(r"^FAILED \S+::(\w+)", result.stdout.str(), re.MULTILINE))
    return failed, result


def test_the_summary_counts_reasons_and_leaves_torchs_test_alone(pytester):
    failed, result = run(pytester, "--clarke")
    assert failed == {"test_wrong"}  # the other wrong one came after its test's time
    result.stdout.fnmatch_lines(
        [
            "clarke: 5 gradients judged in 3 tests: 3 SURROGATE, 1 NOT_CLARKE, 1 SMOOTH",
            "clarke: 3 x Own is a custom autograd.Function with a derivative of its own",
        ]
    )


def test_a_budget_for_every_test(pytester):
    failed, result = run(pytester, "--clarke", "--clarke-budget", "1e-9")
    assert failed == {"test_wrong"}  # the first call of each is looked at
    result.stdout.fnmatch_lines(["clarke: 3 gradients judged in 3 tests: *"])


@pytest.mark.slow
def test_a_baseline(pytester):
    failed, result = run(pytester, "--clarke", "--clarke-strict", "--clarke-baseline", "known.json")
    assert failed == set()
    result.stdout.fnmatch_lines(["clarke: 2 gradients written to known.json*"])
    known = json.loads((pytester.path / "known.json").read_text())
    assert known["test_suite.py::test_wrong"] == ["NOT_CLARKE in wrong: relu in wrong"]
    failed, _ = run(pytester, "--clarke", "--clarke-strict", "--clarke-baseline", "known.json")
    assert failed == set()
    del known["test_suite.py::test_wrong"]
    (pytester.path / "known.json").write_text(json.dumps(known))
    failed, _ = run(pytester, "--clarke", "--clarke-strict", "--clarke-baseline", "known.json")
    assert failed == {"test_wrong"}
    (pytester.path / "known.json").write_text("[]")
    _, result = run(pytester, "--clarke", "--clarke-baseline", "known.json")
    result.stderr.fnmatch_lines(["*known.json is no list that clarke wrote*"])
