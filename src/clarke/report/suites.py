"""Two files of `pytest --clarke-record` compared: which tests change gradient or verdict."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from clarke.errors import InputError
from clarke.report.runs.words import label
from clarke.report.sheet import Sheet
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import RenderableType

# What counts as the same value, relative to the largest of its tensor: roundings in other order.
_CLOSE: Mapping[str, float] = MappingProxyType({"float64": 1e-9, "float32": 1e-4})
_COARSE = 2e-2
FORMAT = 1  # of the file
_SHOWN = 4


@dataclass(frozen=True)
class Suite:
    """The gradients of a test suite.

    Attributes:
        torch: Version of torch that it ran on.
        tests: Outcome and gradients by name.
    """

    torch: str
    tests: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """A backward call of a test that is another one in the second file.

    Attributes:
        test: The test's name.
        where: Where backward was called.
        verdicts: Before and after.
        values: Before and after, as text; "" where they are the same.
        choices: Operation and line with what autograd chose before and after, where that differs.
    """

    test: str
    where: str
    verdicts: tuple[str, str]
    values: tuple[str, str]
    choices: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class SuiteComparison:
    """What differs between two files.

    Attributes:
        first: The first file.
        second: The second file.
        common: How many tests both have.
        changes: What changed in these.
        outcomes: Tests that pass in one of them only, with both outcomes.
        calls: Tests that make another number of backward calls.
    """

    first: Suite
    second: Suite
    common: int
    changes: tuple[Change, ...]
    outcomes: tuple[tuple[str, str, str], ...]
    calls: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The comparison in a sentence or two."""
        if not self.common:
            return "The two suites have no test in common."
        tests = {c.test for c in self.changes}
        gradient = {c.test for c in self.changes if any(c.values)}
        verdict = {c.test for c in self.changes if c.verdicts[0] != c.verdicts[1]}
        told = f"{self.common:,} tests in both, torch {self.first.torch} and {self.second.torch}: "
        if not (tests or self.calls):
            return told + "no gradient and no verdict changed."
        told += (
            f"{len(tests | set(self.calls)):,} changed ({len(gradient):,} in a gradient, "
            f"{len(verdict):,} in a verdict)."
        )
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "answer": self.answer,
            "torch": [self.first.torch, self.second.torch],
            "common": self.common,
            "changes": [{**vars(c), "choices": [list(x) for x in c.choices]} for c in self.changes],
            "outcomes": [list(o) for o in self.outcomes],
            "calls": list(self.calls),
        }


def read_suite(file: Path) -> Suite:
    """Read a file that `pytest --clarke-record` wrote.

    Raises:
        InputError: It is none.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["clarke_suite"] != FORMAT:
            raise InputError(f"{file} was written by a newer version of clarke.")
        return Suite(str(data["torch"]), data["tests"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file} is no file of gradients. `pytest --clarke-record FILE` writes one; of runs, "
            "name the folders."
        ) from error


def compare_suites(first: Suite, second: Suite) -> SuiteComparison:
    """Match tests by name, their backward calls by order."""
    common = [name for name in first.tests if name in second.tests]
    changes: list[Change] = []
    outcomes, calls = [], []
    for name in common:
        a, b = first.tests[name], second.tests[name]
        if a["outcome"] != b["outcome"]:
            outcomes.append((name, a["outcome"], b["outcome"]))
        if len(a["gradients"]) != len(b["gradients"]):
            calls.append(name)
        for one, other in zip(a["gradients"], b["gradients"], strict=False):
            change = _change(name, one, other)
            if change is not None:
                changes.append(change)
    return SuiteComparison(
        first, second, len(common), tuple(changes), tuple(outcomes), tuple(calls)
    )


def _change(test: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Change | None:
    verdicts = (_verdict(one), _verdict(other))
    same = len(one["values"]) == len(other["values"]) and all(
        _alike(a, b) for a, b in zip(one["values"], other["values"], strict=True)
    )
    if same and verdicts[0] == verdicts[1]:
        return None
    values = ("", "") if same else _values(one["values"], other["values"])
    choices = tuple(
        (place, chosen, other["choices"][place])
        for place, chosen in one["choices"].items()
        if other["choices"].get(place, chosen) != chosen
    )
    return Change(test, one["called"], verdicts, values, choices)


def _verdict(gradient: Mapping[str, Any]) -> str:
    name = gradient["verdict"]
    return label(None if name is None else Verdict[name])


def _alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    if a["shape"] != b["shape"] or a["dtype"] != b["dtype"]:
        return False
    mine, theirs = ([float(v) for v in x.get("entries", x.get("sums", ()))] for x in (a, b))
    size = float(a.get("norm", max((abs(v) for v in mine if math.isfinite(v)), default=0.0)))
    room = _CLOSE.get(a["dtype"], _COARSE) * size
    return len(mine) == len(theirs) and all(
        x == y or (math.isnan(x) and math.isnan(y)) or abs(x - y) <= room
        for x, y in zip(mine, theirs, strict=True)
    )


def _values(one: list[Mapping[str, Any]], other: list[Mapping[str, Any]]) -> tuple[str, str]:
    """What differs, before and after: a few entries, or the lengths of what has too many."""
    if len(one) != len(other):
        return f"{len(one)} tensors", f"{len(other)} tensors"
    told: tuple[list[str], list[str]] = ([], [])
    for i, (a, b) in enumerate(zip(one, other, strict=True)):
        if _alike(a, b):
            continue
        whose = f"tensor {i}: " if len(one) > 1 else ""
        for side, text in zip(told, _entries(a, b), strict=True):
            side.append(whose + text)
    return "\n".join(told[0][:_SHOWN]), "\n".join(told[1][:_SHOWN])


def _entries(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str]:
    if a["shape"] != b["shape"] or a["dtype"] != b["dtype"]:
        return _about(a), _about(b)
    if "entries" not in a:
        lengths = (f", of length {_number(v['norm'])}" for v in (a, b))
        return _about(a) + next(lengths), _about(b) + next(lengths)
    pairs = list(zip(a["entries"], b["entries"], strict=True))
    other = [i for i, (x, y) in enumerate(pairs) if _number(x) != _number(y)] or range(len(pairs))
    told: tuple[list[str], list[str]] = ([], [])
    for i in other[:_SHOWN]:
        where = f"[{i}] " if len(pairs) > 1 else ""
        for side, value in zip(told, pairs[i], strict=True):
            side.append(where + _number(value))
    more = ", …" if len(other) > _SHOWN else ""
    return ", ".join(told[0]) + more, ", ".join(told[1]) + more


def _about(value: Mapping[str, Any]) -> str:
    return f"{value['dtype']} <{'x'.join(map(str, value['shape']))}>"


def _number(text: str) -> str:
    return f"{float(text) + 0.0:.4g}"


def suite_view(found: SuiteComparison) -> Group:
    """The comparison as one table."""
    parts: list[RenderableType] = [Text(found.answer)]
    if found.changes:
        titles = ("test", f"torch {found.first.torch}", f"torch {found.second.torch}")
        rows = []
        for c in found.changes:
            cells = [
                "\n".join(
                    filter(None, (c.verdicts[i], c.values[i], *(x[i + 1] for x in c.choices)))
                )
                for i in range(2)
            ]
            places = "".join(f"\n{place}" for place, _, _ in c.choices)
            rows.append((f"{c.test.rpartition('::')[2]} ({c.where}){places}", *cells))
        parts += ["", Sheet(titles, rows)]
    parts += [
        Text(f"{name}: {before} before, {after} after", "yellow")
        for name, before, after in found.outcomes
    ]
    parts += [Text(f"{name}: another number of backward calls", "yellow") for name in found.calls]
    return Group(*parts)
