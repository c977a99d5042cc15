"""Reduce a run to what a page can show: bins of steps, layers, places and steps of note."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from clarke.report.runs.model import SEVERITY
from clarke.report.runs.words import label
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from clarke.report.runs.model import Run, StepRecord

BINS = 240
_NUMBER: Final = re.compile(r"\d[\d.,e+-]*")
LAYERS = 60
NOTED = 30


@dataclass(frozen=True)
class Place:
    """One operation on one source line, over the whole run.

    Attributes:
        operation: Operator name.
        module: Module path.
        file: Source file.
        line: Line in it.
        source: Its text.
        touched: Touched kinks, all steps together.
        relevant: Those whose piece can change the gradient, as far as found out.
        known: Whether that was found out of all of them.
        steps: Steps that touched one.
        choices: What AD chose there, in words, most frequent first.
        named: How often a verdict named it, by verdict.
    """

    operation: str
    module: str
    file: str
    line: int
    source: str
    touched: int
    relevant: int
    known: bool
    steps: int
    choices: tuple[str, ...]
    named: dict[Verdict, int]

    @property
    def matter(self) -> str:
        """How many of its kinks matter, in words."""
        if self.known:
            return f"{self.relevant:,} matter"
        some = f"at least {self.relevant:,} matter" if self.relevant else ""
        return some or "how many matter was not found out"

    @property
    def worst(self) -> Verdict | None:
        """The worst verdict that named it."""
        return next((v for v in SEVERITY if self.named.get(v)), None)


def layer_of(module: str) -> str:
    """What a kink's layer is called; no path means the model's own forward, or no module."""
    return module or "(top level)"


def places(run: Run) -> tuple[Place, ...]:
    """All places with touched kinks or named by a verdict, the worst first."""
    sums: dict[tuple[str, str, str, int], list[int]] = {}
    choices: dict[tuple[str, str, str, int], Counter[str]] = {}
    named: dict[tuple[str, str, str, int], Counter[Verdict]] = {}
    for step in run.steps:
        for k in step.kinks:
            key = (k.operation, k.module, k.file, k.line)
            total = sums.setdefault(key, [0, 0, 0, 0])
            total[3] += k.relevant is None
            total[0] += k.touched
            total[1] += k.relevant or 0
            total[2] += 1
            choices.setdefault(key, Counter())[k.choice] += 1
        if step.outcome is not None:
            for key in {(c.operation, c.module, c.file, c.line) for c in step.culprits}:
                named.setdefault(key, Counter())[step.outcome] += 1
    found = []
    for key in {**sums, **named}:
        total = sums.get(key, [0, 0, 0, 0])
        found.append(
            Place(
                *key,
                source=run.sources.get(key[2:], ""),
                touched=total[0],
                relevant=total[1],
                known=not total[3],
                steps=total[2],
                choices=tuple(c for c, _ in choices.get(key, Counter()).most_common()),
                named=dict(named.get(key, {})),
            )
        )
    order = {v: i for i, v in enumerate(SEVERITY)}

    def rank(place: Place) -> tuple[int, int, int, int]:
        worst = len(SEVERITY) if place.worst is None else order[place.worst]
        return worst, -sum(place.named.values()), -place.relevant, -place.touched

    return tuple(sorted(found, key=rank))


def digest(run: Run) -> dict[str, Any]:
    """The run as plain data for the page's script."""
    count = len(run.steps)
    bins = min(BINS, count)
    kinds: list[Verdict | None] = [*reversed(SEVERITY), None]
    verdicts = {k: [0] * bins for k in kinds}
    touched: dict[str, list[int]] = {}
    relevant: dict[str, list[int]] = {}
    elements: dict[str, list[int]] = {}
    starts = [0] * bins
    for i in range(count - 1, -1, -1):
        starts[i * bins // count] = run.steps[i].number
    for i, step in enumerate(run.steps):
        b = i * bins // count
        verdicts[step.outcome][b] += 1
        for k in step.kinks:
            layer = layer_of(k.module)
            for table, value in (
                (touched, k.touched),
                (relevant, k.relevant or 0),
                (elements, k.elements),
            ):
                table.setdefault(layer, [0] * bins)[b] += value
    shown = sorted(touched, key=lambda name: (-sum(relevant[name]), -sum(touched[name])))[:LAYERS]
    order = [name for name in touched if name in set(shown)]  # in order of evaluation
    return {
        "starts": starts,
        "last": run.steps[-1].number if run.steps else 0,
        "verdicts": [
            {"key": _key(k), "label": label(k), "counts": verdicts[k]}
            for k in kinds
            if any(verdicts[k])
        ],
        "layers": [
            {
                "name": name,
                "touched": touched[name],
                "relevant": relevant[name],
                "elements": elements[name],
            }
            for name in order
        ],
        "hidden": len(touched) - len(order),
    }


@dataclass(frozen=True)
class Noted:
    """Steps with the same outcome for the same reason at the same places.

    Attributes:
        first: The first of them.
        numbers: The numbers of all.
    """

    first: StepRecord
    numbers: tuple[int, ...]


def noted(run: Run) -> tuple[Noted, ...]:
    """What was not proved correct, the worst and earliest first; alike steps as one."""
    order = {v: i for i, v in enumerate(SEVERITY)}
    groups: dict[tuple[Any, ...], list[StepRecord]] = {}
    for step in run.steps:
        outcome = step.outcome
        if outcome is None or outcome.correct is True:
            continue
        places = tuple((c.operation, c.module, c.file, c.line) for c in step.culprits)
        words = "" if places else _NUMBER.sub("#", step.reason)
        key = (order[outcome], step.verdict, places, words, step.ignored)
        groups.setdefault(key, []).append(step)
    ranked = sorted(groups.items(), key=lambda item: (item[0][0], item[1][0].number))
    return tuple(Noted(found[0], tuple(s.number for s in found)) for _, found in ranked)


def _key(verdict: Verdict | None) -> str:
    return "NONE" if verdict is None else verdict.name
