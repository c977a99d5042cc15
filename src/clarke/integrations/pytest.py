"""Judge every backward call inside of tests; `pytest_clarke` loads this when it is asked for."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from clarke import Verdict, audit
from clarke.integrations.recording import is_nonfinite, worst_entry
from clarke.integrations.suite import gradient_data
from clarke.numerics import STEP_SECONDS
from clarke.report.phrases import several
from clarke.report.runs.words import label

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from clarke import Audit, Report, Step

_SHOWN = 3
_PLACE: Final = re.compile(r" at (?:\S+ \()?[^\s()]+:\d+\)?")
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")
_ALLOWED = frozenset({"strict", "every", "seconds", "budget", "skip", "nonfinite"})


class AuditPlugin:
    """Runs tests under an audit.

    Args:
        everywhere: All tests, not only those with the marker.
        strict: Undecided gradients fail a test unless its marker says otherwise.
        budget: Seconds for all calls of one test unless its marker says otherwise; None for no
            limit.
        known: What is known of each test, by its name: findings that do not fail it. None if there
            is no such list.
        collecting: Findings are to be listed, not failed.
        nonfinite: NaN and infinity fail no test unless its marker says otherwise.
        recording: Every gradient goes into the reports of its test, to be compared later.
    """

    def __init__(
        self,
        *,
        everywhere: bool,
        strict: bool,
        budget: float | None = None,
        known: Mapping[str, Sequence[str]] | None = None,
        collecting: bool = False,
        nonfinite: bool = False,
        recording: bool = False,
    ) -> None:
        self._everywhere = everywhere
        self._strict = strict
        self._budget = budget
        self._known = known or {}
        self._collecting = collecting
        self._nonfinite = nonfinite
        self._recording = recording

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Run the test's body in an audit, and fail it afterwards if a gradient is wrong."""
        marker = item.get_closest_marker("clarke")
        options = dict(marker.kwargs) if marker is not None else {}
        unknown = (marker.args if marker is not None else ()) or set(options) - _ALLOWED
        if unknown:
            pytest.fail(
                f"pytest.mark.clarke does not take {', '.join(map(str, unknown))}; "
                "it takes strict=..., every=..., seconds=..., budget=..., nonfinite=... and "
                "skip=....",
                pytrace=False,
            )
        if options.get("skip") or (marker is None and not self._everywhere):
            yield
            return
        reports: list[tuple[Step, Report | None]] = []
        watch = audit(
            _leave_it,
            on_nonfinite=None,
            every=options.get("every", 1),
            seconds=options.get("seconds", STEP_SECONDS),
            total_seconds=options.get("budget", self._budget),
        )
        watch.subscribe(lambda step, report: reports.append((step, report)))
        with watch:
            outcome = yield
        _count(item, watch)
        strict = bool(options.get("strict", self._strict))
        allowed = bool(options.get("nonfinite", self._nonfinite))
        sums = {s.number: s for s in watch.steps}  # as they stand at the end
        found = [(sums.get(s.number, s), r) for s, r in reports]
        bad = [(s, r) for s, r in found if _is_bad(s, r, strict=strict, nonfinite=allowed)]
        if self._recording:
            item.user_properties.append(("clarke-record", [gradient_data(s, r) for s, r in found]))
        names = dict.fromkeys(_finding(s) for s, _ in bad)
        if names:
            item.user_properties.append(("clarke-found", list(names)))
        known = self._known.get(item.nodeid, ())
        bad = [(s, r) for s, r in bad if not self._collecting and _finding(s) not in known]
        if bad and outcome.excinfo is None:  # a test that failed by itself says why by itself
            outcome.force_exception(pytest.fail.Exception(_message(bad), pytrace=False))


def _leave_it(_report: Report) -> None:
    """What the audit does about a wrong gradient: the test is failed at its end."""


def _is_bad(step: Step, report: Report | None, *, strict: bool, nonfinite: bool) -> bool:
    if not step.looked or step.ignored:
        return False
    if Verdict.NOT_CLARKE in (step.verdict, step.joint):
        return True
    if not nonfinite and is_nonfinite(step.verdict, report):
        return True
    return strict and not (step.correct and _used_sum_is_right(step))


def _used_sum_is_right(step: Step) -> bool:
    """False if somebody used what the call added to, and that could not be judged."""
    return step.verdict is step.joint or step.joint is None or step.joint.correct is True


def _count(item: pytest.Item, watch: Audit) -> None:
    counts = Counter(s.verdict.name for s in watch.steps if s.verdict is not None)
    if counts:
        item.user_properties.append(("clarke", dict(counts)))
    ignored = [s.ignored for s in watch.steps if s.ignored]
    if ignored:
        item.user_properties.append(("clarke-ignored", ignored))
    open_ones = (Verdict.UNDECIDED, Verdict.SURROGATE)
    why = Counter(short_reason(s.reason) for s in watch.steps if s.verdict in open_ones)
    if why:
        item.user_properties.append(("clarke-undecided", dict(why)))


def short_reason(reason: str) -> str:
    """What reasons of one kind have in common: the first sentence, without place or numbers."""
    first = re.split(r"(?<=[^.]\.)\s|; |: (?=[a-z])", _PLACE.sub("", reason), maxsplit=1)[0]
    return _NUMBER.sub("#", first).rstrip(".;:, ")


def _finding(step: Step) -> str:
    """A gradient by what stays when lines are added above: verdict, function, operations."""
    verdict = step.joint if step.joint is Verdict.NOT_CLARKE else step.verdict
    named = sorted({f"{c.operation} in {c.location.function}" for c in step.culprits})
    name = "undecided" if verdict is None else verdict.name
    return f"{name} in {step.location.function}: {', '.join(named) or 'nothing named'}"


def _message(bad: list[tuple[Step, Report | None]]) -> str:
    """What and where in the first line, which is all that pytest's short summary shows."""
    first = _first(*bad[0])
    lines = [first + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else "")]
    for step, report in bad[:_SHOWN]:
        lines += ["", f"backward call {step.number} at {step.location}"]
        if step.verdict is not step.joint and step.joint is not None:
            lines.append(f"the accumulated sum: {step.joint_reason or step.joint.value}")
        lines.append(str(report) if report is not None else step.reason)
        if report is None or step.verdict is not step.joint:  # a report names them itself
            lines += [f"  named     {c}" for c in dict.fromkeys(map(str, step.culprits))]
    if len(bad) > _SHOWN:
        lines += ["", f"and {len(bad) - _SHOWN} more"]
    return "\n".join(lines)


def _first(step: Step, report: Report | None) -> str:
    verdict = step.joint if step.joint is Verdict.NOT_CLARKE else step.verdict
    where = f"{Path(step.location.file).name}:{step.location.line}"
    named = Counter(
        (c.operation, f"{Path(c.location.file).name}:{c.location.line}") for c in step.culprits
    )
    places = ", ".join(f"{several(name, n)} at {place}" for (name, place), n in named.items())
    value = "" if report is None else worst_entry(report).partition(";")[0]
    parts = (f"{label(verdict)}: gradient at {where}", places, value)
    return "; ".join(p for p in parts if p)
