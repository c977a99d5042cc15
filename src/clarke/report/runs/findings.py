"""What a run found, for programs: plain data, SARIF, annotations of CI, a list of what is known.

A finding is known again by verdict, operations, file name and text of the lines, not by their
numbers.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarke.errors import InputError
from clarke.report.phrases import likely
from clarke.report.runs.digest import noted, places
from clarke.report.runs.words import alike, label, meaning
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection

    from clarke.report.runs.digest import Noted
    from clarke.report.runs.model import Run, StepRecord

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def run_data(run: Run) -> dict[str, Any]:
    """A run as plain data: how it went, what was found, where kinks were touched."""
    return {
        "program": run.settings.get("program"),
        "finished": run.finished,
        "ended": run.summary.get("ended"),
        "calls": len(run.steps),
        "judged": run.looked,
        "verdicts": {v.name: n for v, n in run.counts().items()},
        "repaired": sum(s.repaired for s in run.steps),
        "ignored": sum(bool(s.ignored) for s in run.steps),
        "touched": sum(s.touched for s in run.steps),
        "relevant": sum(s.relevant for s in run.steps),
        "judging": sum(s.seconds for s in run.steps),
        "seconds": run.summary.get("seconds"),
        "findings": [finding_data(run, group) for group in noted(run)],
        "places": [
            {
                "operation": p.operation,
                "module": p.module,
                "file": p.file,
                "line": p.line,
                "source": p.source,
                "steps": p.steps,
                "touched": p.touched,
                "relevant": p.relevant,
                "choices": list(p.choices),
            }
            for p in places(run)
        ],
        "settings": dict(run.settings),
    }


def finding_data(run: Run, group: Noted) -> dict[str, Any]:
    """What alike steps have in common, as plain data."""
    step = group.first
    return {
        "verdict": None if step.outcome is None else step.outcome.name,
        "steps": list(group.numbers),
        "reason": step.why,
        "causes": list(likely(step.outcome, step.reason)),
        "values": step.values,
        "cures": list(step.cures),
        "repaired": step.repaired,
        "ignored": step.ignored,
        "called": {"file": step.file, "line": step.line},
        "culprits": [
            {**vars(c), "source": run.sources.get((c.file, c.line), "")} for c in step.culprits
        ],
    }


def name_of(run: Run, step: StepRecord) -> str:
    """What a finding is called in a list of known ones."""
    named = sorted(
        {
            f"{c.operation} at {Path(c.file).name}: {run.sources.get((c.file, c.line), '')}"
            for c in step.culprits
        }
    )
    called = f"called at {Path(step.file).name}"
    verdict = "" if step.outcome is None else step.outcome.name
    return f"{verdict}: {'; '.join(named) or called}"


def told(run: Run, known: Collection[str] = ()) -> tuple[Noted, ...]:
    """What counts: not known, not ignored, not repaired, and no surrogate."""
    return tuple(
        group
        for group in noted(run)
        if not group.first.ignored
        and not group.first.repaired
        and group.first.outcome is not Verdict.SURROGATE
        and name_of(run, group.first) not in known
    )


def read_known(file: Path) -> frozenset[str]:
    """The names in a list of known findings.

    Raises:
        InputError: It is none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return frozenset(map(str, found["known"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is no list of known findings ({error}). Delete it to have a new one written."
        ) from error


def write_known(run: Run, file: Path) -> int:
    """Write what a run found as known; gives how many."""
    names = sorted({name_of(run, group.first) for group in told(run)})
    try:
        file.write_text(json.dumps({"known": names}, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{file} cannot be written: {error.strerror}. Name another file."
        ) from error
    return len(names)


def _level(verdict: Verdict | None) -> str:
    return "error" if verdict in (Verdict.NOT_CLARKE, Verdict.NONFINITE) else "warning"


def _lines(group: Noted) -> list[tuple[str, int]]:
    """Where to show a finding: the lines named, else where backward was called."""
    step = group.first
    found = list(dict.fromkeys((c.file, c.line) for c in step.culprits if c.line))
    return found or ([(step.file, step.line)] if step.line else [])


def _message(group: Noted) -> str:
    step = group.first
    named = "; ".join(f"{what}: {why}" for what, _, why in alike(step.culprits)[:4])
    parts = (
        f"{label(step.outcome)} in step {step.number:,}"
        + (f" and {len(group.numbers) - 1:,} more" if len(group.numbers) > 1 else ""),
        step.why.removeprefix("WRONG: "),
        named,
        step.values,
        *(f"Instead: {c}" for c in step.cures),
    )
    return ". ".join(p.rstrip(".") for p in parts if p) + "."


def _relative(file: str, run: Run) -> str:
    """A path as CI knows it: below the directory in which the run was started."""
    base = Path(str(run.settings.get("working_directory", ".")))
    path = Path(file)
    try:
        return (path if path.is_absolute() else base / path).relative_to(base).as_posix()
    except ValueError:
        return path.as_posix()


def ci_annotations(run: Run, known: Collection[str] = ()) -> str:
    """Lines that GitHub's runners show beside the code."""
    lines = [f"::warning::clarke: {_escaped(run.state)}"] if run.state else []
    for group in told(run, known):
        text = _escaped(_message(group))
        for file, line in _lines(group)[:1]:
            where = f"file={_escaped(_relative(file, run), part=True)},line={line}"
            title = _escaped(f"clarke: {label(group.first.outcome)}", part=True)
            lines.append(f"::{_level(group.first.outcome)} {where},title={title}::{text}")
    return "\n".join(lines)


def _escaped(text: str, *, part: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if part else text


def sarif(run: Run, known: Collection[str] = ()) -> dict[str, Any]:
    """A log in SARIF 2.1.0, which code hosts and editors read."""
    results = []
    for group in noted(run):
        step = group.first
        if step.outcome in (None, Verdict.SURROGATE) or not _lines(group):
            continue
        name = name_of(run, step)
        result: dict[str, Any] = {
            "ruleId": step.outcome.name,
            "level": _level(step.outcome),
            "message": {"text": _message(group)},
            "locations": [_location(file, line, run) for file, line in _lines(group)],
            "partialFingerprints": {"clarke/v1": name},
            "baselineState": "unchanged" if name in known else "new",
        }
        if step.ignored:
            suppressed = {"kind": "inSource", "justification": step.ignored}
            result["suppressions"] = [suppressed]
        results.append(result)
    rules = [
        {
            "id": v.name,
            "shortDescription": {"text": v.value},
            "help": {"text": meaning(v)},
        }
        for v in Verdict
        if v.correct is not True
    ]
    driver = {"name": "clarke", "version": metadata.version("clarke"), "rules": rules}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "invocations": [{"executionSuccessful": run.finished and not run.state}],
                "results": results,
            }
        ],
    }


def _location(file: str, line: int, run: Run) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": _relative(file, run)}, "region": {"startLine": line}}
    return {"physicalLocation": place}
