"""The run folder: ``settings.json``, ``steps.jsonl`` written as the run goes, ``summary.json``.

Every line of ``steps.jsonl`` is one JSON object that reaches the operating system whole before
the program goes on, so that a run that is killed leaves all its finished steps. Source lines and
long texts, which repeat from step to step, are written once and referred to by number:

- ``{"text": n, "value": "..."}`` introduces a text,
- ``{"site": n, "operation": ..., "module": ..., "file": ..., "line": ..., "source": ...}`` a place,
- ``{"step": n, "verdict": ..., "kinks": [[site, elements, touched, relevant, text], ...], ...}``
  is a step,
- ``{"passed": [m, n], "reason": ..., "at": ...}`` are steps m to n, not looked at; up to a
  second's of them are written together,
- ``{"begun": n, "at": [text, line]}`` says that the judging of a step begins: without the step, the
  run was interrupted in it,
- ``{"amended": n, "joint": [verdict, text]}`` says what became of the sum that a step added to.
"""

from __future__ import annotations

import json
import linecache
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarke.errors import InputError
from clarke.report.model import KinkSummary
from clarke.report.runs.model import CulpritRecord, Picture, Run, StepRecord
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 3
SETTINGS, STEPS, SUMMARY = "settings.json", "steps.jsonl", "summary.json"
_LONGEST_SOURCE = 240
_APART = 1.0  # seconds between lines about steps that were not looked at


class RunWriter:
    """Writes a run folder.

    Args:
        folder: Created if missing; must not hold a run already.
        settings: Plain data; written at once.

    Raises:
        InputError: The folder holds a run, or cannot be made.
    """

    def __init__(self, folder: Path | str, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be made the folder of a run: {error.strerror}. "
                "Name another one."
            ) from error
        if (self.folder / STEPS).exists():
            raise InputError(
                f"{self.folder} holds a run already. Give another folder, or remove this one."
            )
        _write_json(self.folder / SETTINGS, {"format": FORMAT, **settings})
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file: int | None = os.open(self.folder / STEPS, flags, 0o644)
        self._process = os.getpid()
        self._texts: dict[str, int] = {}
        self._sites: dict[tuple[str, str, str, int], int] = {}
        # Steps that were not looked at and are not written yet: first, last, file, line, reason.
        self._passed: tuple[int, int, str, int, str] | None = None
        self._written = time.monotonic()

    def begin(self, number: int, file: str, line: int) -> None:
        """Note that a step is going to be judged; `write` ends it."""
        if self._file is None or os.getpid() != self._process:
            return
        lines = self._lines_before()
        lines.append({"begun": number, "at": [self._text(lines, file), line]})
        _write_all(self._file, "".join(_line(entry) for entry in lines).encode())

    def write(self, step: StepRecord) -> None:
        """Append a step; when this returns, it survives the end of the process."""
        if self._file is None or os.getpid() != self._process:
            return
        lines = self._lines_before()
        kinks = [
            [
                self._site(lines, k.operation, k.module, k.file, k.line),
                k.elements,
                k.touched,
                k.relevant,
                self._text(lines, k.choice),
            ]
            for k in step.kinks
        ]
        culprits = [
            [self._site(lines, c.operation, c.module, c.file, c.line), self._text(lines, c.reason)]
            for c in step.culprits
        ]
        body: dict[str, Any] = {
            "step": step.number,
            "verdict": None if step.verdict is None else step.verdict.name,
            "reason": self._text(lines, step.reason),
            "theorem": step.theorem,
            "seconds": round(step.seconds, 7),
            "at": [self._text(lines, step.file), step.line],
            "kinks": kinks,
        }
        if culprits:
            body["culprits"] = culprits
        if step.group is not None:
            body["group"] = step.group
        if step.joint is not step.verdict or step.joint_reason:
            name = None if step.joint is None else step.joint.name
            body["joint"] = [name, self._text(lines, step.joint_reason)]
        if step.repaired:
            body["repaired"] = True
        if step.picture is not None:
            body["picture"] = vars(step.picture)
        if step.cures:
            body["cures"] = [self._text(lines, c) for c in step.cures]
        if step.values:
            body["values"] = step.values
        if step.nonfinite:
            body["nonfinite"] = True
        if step.ignored:
            body["ignored"] = step.ignored
        lines.append(body)
        _write_all(self._file, "".join(_line(entry) for entry in lines).encode())

    def pass_by(self, number: int, file: str, line: int, reason: str) -> None:
        """Append a step that was not looked at: at once, or within a second."""
        last = self._passed
        if last is not None and last[1:] == (number - 1, file, line, reason):
            self._passed = (last[0], number, file, line, reason)
            if time.monotonic() - self._written < _APART:
                return
        elif last is None:
            self._passed = (number, number, file, line, reason)
            return
        self._flush()
        if last[1:] != (number - 1, file, line, reason):
            self._passed = (number, number, file, line, reason)

    def _flush(self) -> None:
        if self._file is not None and os.getpid() == self._process:
            _write_all(self._file, "".join(map(_line, self._lines_before())).encode())

    def _lines_before(self) -> list[dict[str, Any]]:
        """The lines that are to be written before others."""
        lines: list[dict[str, Any]] = []
        passed, self._passed = self._passed, None
        self._written = time.monotonic()
        if passed is not None:
            first, last, file, line, reason = passed
            reason_at = self._text(lines, reason), self._text(lines, file)
            entry = {"passed": [first, last], "reason": reason_at[0], "at": [reason_at[1], line]}
            lines.append(entry)
        return lines

    def amend(self, step: StepRecord) -> None:
        """Note that the verdict on a written step's sum has changed."""
        if self._file is None or os.getpid() != self._process or step.joint is None:
            return
        lines = self._lines_before()
        why = self._text(lines, step.joint_reason)
        lines.append({"amended": step.number, "joint": [step.joint.name, why]})
        _write_all(self._file, "".join(_line(entry) for entry in lines).encode())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and close; further calls do nothing."""
        if self._file is None or os.getpid() != self._process:
            return
        self._flush()
        os.close(self._file)
        self._file = None
        _write_json(self.folder / SUMMARY, summary)

    def _text(self, lines: list[dict[str, Any]], text: str) -> int:
        number = self._texts.get(text)
        if number is None:
            number = self._texts[text] = len(self._texts)
            lines.append({"text": number, "value": text})
        return number

    def _site(
        self, lines: list[dict[str, Any]], operation: str, module: str, file: str, line: int
    ) -> int:
        key = (operation, module, file, line)
        number = self._sites.get(key)
        if number is None:
            number = self._sites[key] = len(self._sites)
            lines.append(
                {
                    "site": number,
                    "operation": operation,
                    "module": module,
                    "file": file,
                    "line": line,
                    "source": linecache.getline(file, line).strip()[:_LONGEST_SOURCE],
                }
            )
        return number


def read_run(folder: Path | str) -> Run:
    """Read a run folder; a last line that was cut off, as a killed run leaves it, is left out.

    Raises:
        InputError: No run is there, or its format is newer than this version of clarke.
    """
    folder = Path(folder)
    if not (folder / STEPS).exists():
        raise InputError(
            f"{folder} holds no run ({STEPS} is missing). "
            "`clarke run SCRIPT` makes one and prints where it is."
        )
    settings = read_json(folder / SETTINGS)
    if settings.get("format", FORMAT) > FORMAT:
        raise InputError(f"{folder} was written by a newer version of clarke. Install that one.")
    reader = _Reader()
    with (folder / STEPS).open("rb") as lines:
        for line in lines:
            reader.take(line)
    summary = read_json(folder / SUMMARY)
    return Run(
        folder=folder,
        settings=settings,
        steps=(*reader.steps, *(() if summary else reader.interrupted())),
        summary=summary,
        sources=reader.sources,
        damaged=reader.damaged,
    )


class _Reader:
    def __init__(self) -> None:
        self.steps: list[StepRecord] = []
        self.sources: dict[tuple[str, int], str] = {}
        self.damaged = 0
        self._begun: tuple[int, str, int] | None = None
        self._texts: dict[int, str] = {}
        self._sites: dict[int, tuple[str, str, str, int]] = {}

    def take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if "text" in entry:
                self._texts[entry["text"]] = entry["value"]
            elif "site" in entry:
                site = (entry["operation"], entry["module"], entry["file"], entry["line"])
                self._sites[entry["site"]] = site
                self.sources[site[2:]] = entry["source"]
            elif "begun" in entry:
                text, at = entry["at"]
                self._begun = entry["begun"], self._texts[text], at
            elif "passed" in entry:
                self.steps += self._passed(entry)
            elif "amended" in entry:
                self._amend(entry["amended"], *entry["joint"])
            else:
                self.steps.append(self._step(entry))
                self._begun = None
        except (ValueError, KeyError, TypeError, StopIteration):
            self.damaged += 1

    def _passed(self, entry: dict[str, Any]) -> list[StepRecord]:
        first, last = entry["passed"]
        text, line = entry["at"]
        one = StepRecord(
            first,
            None,
            self._texts[entry["reason"]],
            file=self._texts[text],
            line=line,
            group=first,
        )
        return [replace(one, number=n, group=n) for n in range(first, last + 1)]

    def _amend(self, number: int, joint: str, text: int) -> None:
        at = next(i for i in reversed(range(len(self.steps))) if self.steps[i].number == number)
        found = self.steps[at]
        self.steps[at] = replace(found, joint=Verdict[joint], joint_reason=self._texts[text])

    def interrupted(self) -> tuple[StepRecord, ...]:
        """The step during which a run was killed, if it was."""
        if self._begun is None:
            return ()
        number, file, line = self._begun
        why = f"The run was interrupted while judging step {number}."
        return (
            StepRecord(
                number,
                Verdict.UNDECIDED,
                why,
                file=file,
                line=line,
                joint=Verdict.UNDECIDED,
            ),
        )

    def _step(self, entry: dict[str, Any]) -> StepRecord:
        name, picture = entry["verdict"], entry.get("picture")
        verdict = None if name is None else Verdict[name]
        joint, why = verdict, ""
        if "joint" in entry:
            named, text = entry["joint"]
            joint, why = None if named is None else Verdict[named], self._texts[text]
        return StepRecord(
            number=entry["step"],
            verdict=verdict,
            reason=self._texts[entry["reason"]],
            theorem=entry["theorem"],
            kinks=tuple(
                KinkSummary(*self._sites[site], elements, touched, relevant, self._texts[text])
                for site, elements, touched, relevant, text in entry["kinks"]
            ),
            culprits=tuple(
                CulpritRecord(*self._sites[site], self._texts[text])
                for site, text in entry.get("culprits", ())
            ),
            seconds=entry["seconds"],
            file=self._texts[entry["at"][0]],
            line=entry["at"][1],
            group=entry.get("group"),
            joint=joint,
            joint_reason=why,
            repaired=entry.get("repaired", False),
            picture=None if picture is None else _picture(picture),
            cures=tuple(self._texts[text] for text in entry.get("cures", ())),
            values=entry.get("values", ""),
            nonfinite=entry.get("nonfinite", False),
            ignored=entry.get("ignored", ""),
        )


def _picture(entry: dict[str, Any]) -> Picture:
    element = entry["element"]
    return Picture(
        gradient=tuple(entry["gradient"]),
        vertices=tuple(tuple(v) for v in entry["vertices"]),
        element=None if element is None else tuple(element),
    )


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":")) + "\n"


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file so that it is there whole or not at all."""
    text = json.dumps(_finite(value), indent=2, default=str)
    new = path.with_suffix(".new")
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(path)


def _finite(value: Any) -> Any:
    """NaN and infinity as text: JSON has no word for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def read_json(path: Path) -> dict[str, Any]:
    """A file's content; nothing where it is not there, or is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
