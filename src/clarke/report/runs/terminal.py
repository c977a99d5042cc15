"""A run in the terminal: what was found, the worst offenders, the layers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from clarke.numerics import JUDGING_NOTABLE, JUDGING_SHARE
from clarke.report.phrases import likely
from clarke.report.runs.digest import layer_of, noted, places
from clarke.report.runs.source import spans
from clarke.report.runs.words import alike, label
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType

    from clarke.report.runs.compare import Comparison
    from clarke.report.runs.model import CulpritRecord, Run, StepRecord

_OFFENDERS = 6
_LAYERS = 12
_LINES = 4
_GAP = 2  # columns between those of a table
_NOT_PROVED = "What was not proved correct"
_SOURCE = 48  # characters of a line of code that is shown beside its number


def run_view(run: Run) -> Group:
    """Everything that is said of a run at its end."""
    parts: list[RenderableType] = [answer(run)]
    offenders = _Offenders(run) if noted(run) else None
    for section in (offenders, _layers(run)):
        if section is not None:
            parts += ["", section]
    parts += ["", _cost(run)]
    return Group(*parts)


def style_of(verdict: Verdict | None) -> str:
    """Its colour on a terminal."""
    if verdict is None:
        return "dim"
    if verdict.correct:
        return "green"
    return "bold red" if verdict is Verdict.NOT_CLARKE else "yellow"


def answer(run: Run) -> Text:
    """Its first line: how many calls, and with what verdicts."""
    text = Text()
    if run.state:
        text.append(f"{run.state} ", "bold yellow")
    if run.damaged > 1 or (run.damaged and run.finished):
        text.append(f"{run.damaged} lines of the record cannot be read. ", "bold red")
    if not run.steps:
        return text.append(
            "No backward call was seen in the main thread of this process, so nothing is judged.",
            "yellow",
        )
    calls = f"{len(run.steps):,} backward call{'s' * (len(run.steps) != 1)}"
    text.append(f"{calls}, {run.looked:,} looked at: ")
    text.append_text(_counted(run.counts())).append(".")
    repaired = sum(s.repaired for s in run.steps)
    if repaired:
        text.append(f"\nRepaired: {repaired:,}; right gradients were put in their place.", "green")
    if run.ignored:
        text.append(f"\n{run.ignored}.", "yellow")
    sums = run.sums()
    if sums:
        text.append("\nSums of accumulated calls: ").append_text(_counted(sums)).append(".")
    return text


def _counted(counts: dict[Verdict, int]) -> Text:
    parts = [Text(f"{n:,} {label(v)}", style_of(v)) for v, n in counts.items()]
    return Text(", ").join(parts or [Text("none")])


class _Offenders:
    """What was not proved correct: a table, or one below the other where a word has no room there.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        groups = noted(run)
        self._rows = [
            (Text(label(o), style_of(o)), f"{len(g.numbers):,}", _found(run, g.first))
            for g in groups[:_OFFENDERS]
            for o in (g.first.outcome,)
        ]
        self._left = len(groups) - _OFFENDERS

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        titles = [Text("verdict"), *(verdict for verdict, _, _ in self._rows)]
        beside = max(t.cell_len for t in titles) + len("steps") + 2 * _GAP
        longest = max(len(w) for _, _, text in self._rows for w in text.plain.split())
        yield self._table() if beside + longest <= options.max_width else self._stack()

    def _table(self) -> Table:
        table = _table(_NOT_PROVED)
        table.add_column("verdict", no_wrap=True)
        table.add_column("steps", justify="right", no_wrap=True)
        table.add_column("where and why", ratio=1, overflow="fold")
        for row in self._rows:
            table.add_row(*row)
        if self._left > 0:
            table.add_row("", "", self._more)
        return table

    def _stack(self) -> Group:
        parts: list[RenderableType] = [Text(_NOT_PROVED, "bold")]
        for verdict, steps, text in self._rows:
            many = "step" if steps == "1" else "steps"
            parts.append(Text().append_text(verdict).append(f" in {steps} {many}"))
            parts.append(Padding(text, (0, 0, 0, _GAP)))
        return Group(*parts, *([self._more] if self._left > 0 else []))

    @property
    def _more(self) -> str:
        return f"and {self._left:,} more; see the report"


def _found(run: Run, step: StepRecord) -> Text:
    """What was found in a step: the lines at fault, the right value, the cure."""
    text = Text(f"first in step {step.number:,}")
    lines: dict[tuple[str, int], list[CulpritRecord]] = {}
    for c in step.culprits:
        lines.setdefault((c.file, c.line), []).append(c)
    for (file, line), named in list(lines.items())[:_LINES]:
        source = run.sources.get((file, line), "")
        text.append(f"\n{spot(file, line)}", "bold")
        if source:
            text.append("  " if len(source) <= _SOURCE else "\n")
            text.append_text(_underlined(source, [c.operation for c in named]))
        for operation, place, reason in alike(named):
            module = place.partition(" (")[0] if " (" in place else ""
            text.append(f"\n{operation}{f' in {module}' if module else ''}: {reason}")
    if not lines:
        text.append(f"\n{step.why}")
    for cause in likely(step.outcome, step.reason):
        text.append(f"\nperhaps: {cause}", "dim")
    for told in _instead(step):
        text.append(f"\n{told}")
    return text


def _underlined(source: str, operations: list[str]) -> Text:
    text = Text(source)
    for begin, end in spans(source, operations):
        text.stylize("underline", begin, end)
    return text


def _instead(step: StepRecord) -> list[str]:
    """Returned and right value, what to write, and whether it was put right already."""
    return [
        *([step.values] if step.values else []),
        *(f"instead: {cure}" for cure in step.cures),
        *([f"does not count, as the code says: {step.ignored}"] if step.ignored else []),
        *(["repaired: a right gradient was put in its place"] if step.repaired else []),
    ]


def _layers(run: Run) -> Table | None:
    found = [p for p in places(run) if p.touched]
    if not found:
        return None
    found.sort(key=lambda p: (-p.relevant, -p.touched))
    table = _table("Kinks by place")
    table.add_column("line", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("operation", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("layer", no_wrap=True, overflow="ellipsis", ratio=3)
    for name in ("steps", "touched", "relevant"):
        table.add_column(name, justify="right", no_wrap=True)
    for p in found[:_LAYERS]:
        table.add_row(
            Text(spot(p.file, p.line)),
            Text(p.operation),
            Text(layer_of(p.module) if p.module else "-"),
            f"{p.steps:,}",
            _short(p.touched),
            _short(p.relevant) if p.known else "?",
        )
    left = len(found) - _LAYERS
    if left > 0:
        table.add_row(f"and {left:,} more", "", "", "", "", "")
    return table


def _cost(run: Run) -> Text:
    judging = sum(s.seconds for s in run.steps)
    text = f"judging took {judging:.1f} s"
    whole = run.summary.get("seconds")
    if isinstance(whole, (int, float)) and whole > 0:
        share = judging / whole
        text += f" of the program's {whole:.1f} s ({100 * share:.0f} %)"
        if share > JUDGING_SHARE and judging > JUDGING_NOTABLE:
            every = int(run.settings.get("every") or 1)
            text += f"; try --every {10 * every}"
    return Text(text, "dim")


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
        expand=True,
    )


def spot(file: str, line: int) -> str:
    """File name and line."""
    return f"{os.fspath(Path(file).name)}:{line}"


def _short(count: int) -> str:
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= limit:
            return f"{count / (1000 if unit == 'k' else limit):.3g} {unit}"
    return f"{count:,}"


def comparison_view(found: Comparison) -> Group:
    """Two runs in the terminal."""
    parts: list[RenderableType] = [Text(found.answer)]
    parts += [
        Text(f"{run.folder.name}: {run.state}", "bold yellow")
        for run in (found.first, found.second)
        if run.state
    ]
    for name, (a, b) in found.settings.items():
        parts.append(Text(f"  {name.replace('_', ' ')}: {a} and {b}", "dim"))
    if found.changed:
        table = _table("Where autograd chose differently")
        for heading in ("line", "operation", "first", "second"):
            table.add_column(heading, overflow="fold", ratio=1)
        for pair in found.changed[:_LAYERS]:
            place = pair.either
            choices = ["; ".join(p.choices[:2]) for p in (pair.first, pair.second) if p is not None]
            table.add_row(
                Text(spot(place.file, place.line)), Text(place.operation), *map(Text, choices)
            )
        parts += ["", table]
    if found.verdicts:
        table = _table("Steps with another verdict")
        for heading in ("step", "first", "second"):
            table.add_column(heading)
        for first, second in found.verdicts[:_LAYERS]:
            table.add_row(
                f"{first.number:,}",
                *(Text(label(s.outcome), style_of(s.outcome)) for s in (first, second)),
            )
        if len(found.verdicts) > _LAYERS:
            table.add_row("…", f"and {len(found.verdicts) - _LAYERS:,} more", "")
        parts += ["", table]
    return Group(*parts)
