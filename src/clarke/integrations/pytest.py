"""Judge every backward call inside of tests; `pytest_clarke` loads this when it is asked for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from clarke import Verdict, audit
from clarke.numerics import STEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator

    from clarke import Audit, Report, Step

_SHOWN = 3
_ALLOWED = frozenset({"strict", "every", "seconds", "skip"})


class AuditPlugin:
    """Runs tests under an audit.

    Args:
        everywhere: All tests, not only those with the marker.
        strict: Undecided gradients fail a test unless its marker says otherwise.
    """

    def __init__(self, *, everywhere: bool, strict: bool) -> None:
        self._everywhere = everywhere
        self._strict = strict

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Run the test's body in an audit, and fail it afterwards if a gradient is wrong."""
        marker = item.get_closest_marker("clarke")
        options = dict(marker.kwargs) if marker is not None else {}
        unknown = (marker.args if marker is not None else ()) or set(options) - _ALLOWED
        if unknown:
            pytest.fail(
                f"pytest.mark.clarke does not take {', '.join(map(str, unknown))}; "
                "it takes strict=..., every=..., seconds=... and skip=....",
                pytrace=False,
            )
        if options.get("skip") or (marker is None and not self._everywhere):
            yield
            return
        reports: list[tuple[Step, Report | None]] = []
        watch = audit(
            _leave_it,
            every=options.get("every", 1),
            seconds=options.get("seconds", STEP_SECONDS),
        )
        watch.subscribe(lambda step, report: reports.append((step, report)))
        with watch:
            outcome = yield
        _count(item, watch)
        strict = bool(options.get("strict", self._strict))
        sums = {s.number: s for s in watch.steps}  # as they stand at the end
        found = [(sums.get(s.number, s), r) for s, r in reports]
        bad = [(s, r) for s, r in found if _is_bad(s, strict=strict)]
        if bad and outcome.excinfo is None:  # a test that failed by itself says why by itself
            outcome.force_exception(pytest.fail.Exception(_message(bad), pytrace=False))


def _leave_it(_report: Report) -> None:
    """What the audit does about a wrong gradient: the test is failed at its end."""


def _is_bad(step: Step, *, strict: bool) -> bool:
    if not step.looked:
        return False
    if Verdict.NOT_CLARKE in (step.verdict, step.joint):
        return True
    return strict and not (step.correct and _used_sum_is_right(step))


def _used_sum_is_right(step: Step) -> bool:
    """False if somebody used what the call added to, and that could not be judged."""
    return step.verdict is step.joint or step.joint is None or step.joint.correct is True


def _count(item: pytest.Item, watch: Audit) -> None:
    counts = Counter(s.verdict.name for s in watch.steps if s.verdict is not None)
    if counts:
        item.user_properties.append(("clarke", dict(counts)))


def _message(bad: list[tuple[Step, Report | None]]) -> str:
    wrong = sum(Verdict.NOT_CLARKE in (s.verdict, s.joint) for s, _ in bad)
    what = "wrong" if wrong == len(bad) else "not proved correct"
    lines = [f"{len(bad)} of the test's gradients: {what}"]
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
