"""The pytest plugin's front door: options and a marker, and nothing of torch until they are used.

pytest imports this module in every environment that has clarke; the audit itself is in
`clarke.integrations.pytest`, imported when ``--clarke`` or ``@pytest.mark.clarke`` asks for it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

_MARKER = (
    "clarke(strict=False, every=1, seconds=1, skip=False): judge the gradient of every backward "
    "call in the test; fail on one that is proved wrong, under `strict` also on one that stays "
    "undecided."
)
_PROPERTY = "clarke"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options, both off."""
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


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker, and load the audit if every test is to be judged."""
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("--clarke"):
        _load(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Load the audit if a test asks for it."""
    if any(item.get_closest_marker("clarke") for item in items):
        _load(config)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line with the number of each verdict, if anything was judged."""
    counts: Counter[str] = Counter()
    tests = 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            found = dict(getattr(report, "user_properties", ())).get(_PROPERTY)
            if found and getattr(report, "when", "") == "call":
                tests += 1
                counts.update(found)
    if counts:
        told = ", ".join(f"{n} {name}" for name, n in counts.most_common())
        judged = _number(sum(counts.values()), "gradient")
        terminalreporter.write_line(f"clarke: {judged} judged in {_number(tests, 'test')}: {told}")


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _load(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("clarke-audit"):
        return
    from clarke.integrations.pytest import AuditPlugin

    strict = bool(config.getoption("--clarke-strict"))
    plugin = AuditPlugin(everywhere=bool(config.getoption("--clarke")), strict=strict)
    config.pluginmanager.register(plugin, "clarke-audit")
