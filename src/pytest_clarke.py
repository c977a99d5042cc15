"""The pytest plugin's front door: options and a marker, and nothing of torch until they are used.

pytest imports this module in every environment that has clarke; the audit itself is in
`clarke.integrations.pytest`, imported when ``--clarke`` or ``@pytest.mark.clarke`` asks for it.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

_MARKER = (
    "clarke(strict=False, every=1, seconds=1, budget=None, nonfinite=False, skip=False): judge the "
    "gradient of every backward call in the test; fail on one that is proved wrong, or holds NaN "
    "or infinity unless `nonfinite`, under `strict` also on one that stays undecided."
)
_PROPERTY = "clarke"
_REASONS = "clarke-undecided"
_FOUND = "clarke-found"
_RECORD = "clarke-record"
_IGNORED = "clarke-ignored"
_SHOWN = 8  # reasons in the summary


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all off."""
    group = parser.getgroup("clarke", "generalized gradients")
    group.addoption(
        "--clarke",
        action="store_true",
        help="judge the gradient of every backward call in all tests, as @pytest.mark.clarke does",
    )
    group.addoption(
        "--clarke-strict",
        action="store_true",
        help="fail judged tests also when a gradient is neither proved right nor wrong",
    )
    group.addoption(
        "--clarke-budget",
        type=float,
        metavar="SECONDS",
        help="take at most so long for all gradients of one test; later ones are left out",
    )
    group.addoption(
        "--clarke-baseline",
        type=Path,
        metavar="FILE",
        help="do not fail what FILE lists; where there is no such file yet, fail nothing and "
        "write what was found to it",
    )
    group.addoption(
        "--clarke-allow-nonfinite",
        action="store_true",
        help="do not fail tests whose gradients hold NaN or infinity",
    )
    group.addoption(
        "--clarke-record",
        type=Path,
        metavar="FILE",
        help="judge all tests and write every gradient with its verdict to FILE; "
        "`clarke report FILE OTHER` compares two environments",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker, and load the audit if every test is to be judged."""
    config.addinivalue_line("markers", _MARKER)
    if _everywhere(config):
        _load(config)


def _everywhere(config: pytest.Config) -> bool:
    return bool(config.getoption("--clarke") or config.getoption("--clarke-record"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Load the audit if a test asks for it."""
    if any(item.get_closest_marker("clarke") for item in items):
        _load(config)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The number of each verdict, and why the rest is undecided, if anything was judged."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    listed: dict[str, list[str]] = {}
    recorded: dict[str, Any] = {}
    ignored: list[str] = []
    tests = 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "call":
                continue
            found = dict(getattr(report, "user_properties", ()))
            tests += _PROPERTY in found
            counts.update(found.get(_PROPERTY, {}))
            reasons.update(found.get(_REASONS, {}))
            ignored += found.get(_IGNORED, ())
            if _FOUND in found:
                listed[report.nodeid] = sorted(found[_FOUND])
            if _RECORD in found:
                recorded[report.nodeid] = {
                    "outcome": report.outcome,
                    "gradients": found[_RECORD],
                }
    _write_baseline(terminalreporter, listed)
    _write_record(terminalreporter, recorded)
    if terminalreporter.config.getoption("--clarke-strict") and not tests:
        terminalreporter.write_line(
            "clarke: --clarke-strict was given, but no gradient was judged: add --clarke, or mark "
            "tests with @pytest.mark.clarke"
        )
    if counts:
        told = ", ".join(f"{n} {name}" for name, n in counts.most_common())
        judged = _number(sum(counts.values()), "gradient")
        line = f"clarke: {judged} judged in {_number(tests, 'test')}: {told}"
        if ignored:
            lines = _number(len(set(ignored)), "line")
            line += f"; {len(ignored)} not counted by # clarke: ignore on {lines}"
        terminalreporter.write_line(line)
    for reason, count in reasons.most_common(_SHOWN):
        terminalreporter.write_line(f"clarke: {count} x {reason}")
    if len(reasons) > _SHOWN:
        more = _number(len(reasons) - _SHOWN, "other reason")
        terminalreporter.write_line(f"clarke: and {more}")


def _write_baseline(terminalreporter: Any, listed: dict[str, list[str]]) -> None:
    """List what was found, where there is no list yet."""
    file: Path | None = terminalreporter.config.getoption("--clarke-baseline")
    if file is None or file.exists() or hasattr(terminalreporter.config, "workerinput"):
        return
    file.write_text(json.dumps(dict(sorted(listed.items())), indent=2) + "\n", encoding="utf-8")
    many = _number(sum(map(len, listed.values())), "gradient")
    terminalreporter.write_line(f"clarke: {many} written to {file}, which do not fail from now on")


def _write_record(terminalreporter: Any, recorded: dict[str, Any]) -> None:
    file: Path | None = terminalreporter.config.getoption("--clarke-record")
    if file is None or hasattr(terminalreporter.config, "workerinput"):
        return
    from clarke.integrations.suite import write_suite

    write_suite(file, recorded)
    gradients = sum(len(test["gradients"]) for test in recorded.values())
    told = f"{_number(gradients, 'gradient')} of {_number(len(recorded), 'test')}"
    terminalreporter.write_line(
        f"clarke: {told} written to {file}; compare with `clarke report {file} OTHER`"
    )


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _load(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("clarke-audit"):
        return
    from clarke.integrations.pytest import AuditPlugin

    file: Path | None = config.getoption("--clarke-baseline")
    there = file is not None and file.exists()
    plugin = AuditPlugin(
        everywhere=_everywhere(config),
        strict=bool(config.getoption("--clarke-strict")),
        budget=config.getoption("--clarke-budget"),
        known=_read_baseline(file) if file is not None and there else None,
        collecting=file is not None and not there,
        nonfinite=bool(config.getoption("--clarke-allow-nonfinite")),
        recording=config.getoption("--clarke-record") is not None,
    )
    config.pluginmanager.register(plugin, "clarke-audit")


def _read_baseline(file: Path) -> dict[str, list[str]]:
    import pytest

    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(test): [str(f) for f in names] for test, names in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise pytest.UsageError(
            f"--clarke-baseline: {file} is no list that clarke wrote ({error}). Delete it to have "
            "a new one written."
        ) from error
