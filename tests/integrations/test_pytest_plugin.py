"""The pytest plugin, in test suites of its own: inert unless used, and it fails what is wrong."""

import re
import subprocess
import sys
import textwrap

pytest_plugins = ["pytester"]

SUITE = """
    import pytest, torch

    def wrong():
        x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        (x.relu() - (-x).relu()).sum().backward()

    def right():
        x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        x.relu().sum().backward()

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()
        @staticmethod
        def backward(ctx, grad):
            return grad

    def unjudged():
        Own.apply(torch.ones(1, requires_grad=True)).sum().backward()


    @pytest.mark.clarke
    def test_marked_wrong(): wrong()

    @pytest.mark.clarke
    def test_marked_right(): right()

    def test_unmarked_wrong(): wrong()

    @pytest.mark.clarke(skip=True)
    def test_out(): wrong()

    def test_no_gradient(): pass

    @pytest.mark.clarke
    def test_unjudged(): unjudged()

    @pytest.mark.clarke(strict=True)
    def test_unjudged_strict(): unjudged()

    @pytest.mark.clarke(strict=False)
    def test_unjudged_lenient(): unjudged()

    @pytest.mark.clarke(every=2)
    def test_second_left_out():
        right()
        wrong()
        right()

    @pytest.mark.clarke
    def test_own_reason():
        wrong()
        assert 1 == 2, "its own reason"

    @pytest.mark.clarke(strictly=True)
    def test_misspelt(): right()

    @pytest.mark.clarke(skip=True)
    def test_nothing_is_left_behind():
        assert torch.autograd._engine_run_backward.__name__ == "_engine_run_backward"
"""

ALWAYS_FAIL = {"test_marked_wrong", "test_unjudged_strict", "test_own_reason", "test_misspelt"}


def outcomes(pytester, *words):
    """Names of the failed tests, the number of all, and the output."""
    pytester.makepyfile(textwrap.dedent(SUITE))
    # In a process of its own: pytester reloads modules, and torch cannot be loaded twice.
    words = ("-p", "pytest_clarke", "-p", "no:xdist", "-p", "no:cacheprovider", "-rA", *words)
    result = pytester.runpytest_subprocess(*words, timeout=120)
    lines = result.stdout.str()
    failed = set(re.findall(r"^FAILED \S+::(\w+)", lines, re.MULTILINE))
    return failed, len(re.findall(r"^(?:FAILED|PASSED) ", lines, re.MULTILINE)), result


def test_marked_tests_are_judged(pytester):
    failed, count, result = outcomes(pytester)
    assert failed == ALWAYS_FAIL
    assert count == 12
    result.stdout.fnmatch_lines(
        [
            "WRONG: gradient at test_*_judged.py:*; both relus at *; returned 0, right 1",
            "*backward call 1 at *test_marked_tests_are_judged.py:*",
            "*NOT_CLARKE: WRONG*",
            "*relu at *test_marked_tests_are_judged*",
        ]
    )
    result.stdout.fnmatch_lines(["*does not take strictly*"])
    result.stdout.fnmatch_lines(["clarke: 8 gradients judged in 7 tests:*2 NOT_CLARKE*"])
    report = result.stdout.str()
    own = report[report.index("_ test_own_reason _") : report.index("_ test_misspelt _")]
    assert "its own reason" in own
    assert "backward call" not in own


def test_the_options_judge_all_and_fail_what_is_undecided(pytester):
    failed, _, _ = outcomes(pytester, "--clarke", "--clarke-strict")
    assert failed == {*ALWAYS_FAIL, "test_unmarked_wrong", "test_unjudged"}


def test_without_use_torch_is_not_even_imported(tmp_path):
    (tmp_path / "test_plain.py").write_text(
        "import sys\n\ndef test_plain():\n"
        "    assert 'pytest_clarke' in sys.modules\n"
        "    assert not {'torch', 'clarke'} & set(sys.modules)\n"
    )
    words = ["-p", "pytest_clarke", "-q", "-p", "no:cacheprovider", "--strict-markers"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "clarke:" not in run.stdout
