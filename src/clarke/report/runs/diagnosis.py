"""What the page leads with: the line, the right value, the cure and a picture of the set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clarke.report.phrases import likely
from clarke.report.runs.digest import NOTED, noted
from clarke.report.runs.drawing import drawing
from clarke.report.runs.markup import esc, key, tag
from clarke.report.runs.source import spans
from clarke.report.runs.words import alike

if TYPE_CHECKING:
    from clarke.report.runs.digest import Noted
    from clarke.report.runs.model import Run, StepRecord

_LINES = 4


def diagnosis(run: Run) -> str:
    """The section, "" where every gradient was right."""
    found = noted(run)
    if not found:
        return ""
    left = len(found) - NOTED
    more = f"<p>{left:,} more groups of steps are left out.</p>" if left > 0 else ""
    articles = "".join(_article(run, group) for group in found[:NOTED])
    return f'<section class="diagnosis">{articles}{more}</section>'


def _article(run: Run, group: Noted) -> str:
    step = group.first
    whose = "" if step.outcome is step.verdict else " (the sum accumulated so far)"
    at = f"{Path(step.file).name}:{step.line}" if step.file else ""
    where = f" · backward called at <code>{esc(at)}</code>" if at else ""
    text = f"step {step.number} {' '.join(c.place for c in step.culprits)}"
    return (
        f'<article data-text="{esc(text)}" data-verdicts="{key(step.outcome)}"><div>'
        f"<h2>{tag(step.outcome)} in step {step.number:,}{whose}"
        f'<span class="soft">{_others(group.numbers)}{where}</span></h2>'
        f"{_lines(run, step)}{_values(step)}{_cures(step)}{_why(step)}</div>"
        f"{'' if step.picture is None else drawing(step.picture)}</article>"
    )


def _others(numbers: tuple[int, ...]) -> str:
    if len(numbers) == 1:
        return ""
    shown = ", ".join(f"{n:,}" for n in numbers[1:9]) + (" …" if len(numbers) > 9 else "")
    many = "one more step" if len(numbers) == 2 else f"{len(numbers) - 1:,} more steps"
    return f" · the same in {many}: {shown}"


def _lines(run: Run, step: StepRecord) -> str:
    """The lines of code that the verdict names, each once, with its operations underlined."""
    found: dict[tuple[str, int], list[str]] = {}
    for c in step.culprits:
        found.setdefault((c.file, c.line), []).append(c.operation)
    shown = []
    for (file, line), operations in list(found.items())[:_LINES]:
        source = run.sources.get((file, line), "")
        spot = f"{Path(file).name}:{line}"
        code = marked(source, operations) if source else esc(", ".join(dict.fromkeys(operations)))
        shown.append(f'<pre class="code"><span class="spot">{esc(spot)}</span>{code}</pre>')
    if len(found) > _LINES:
        shown.append(f'<p class="soft">and {len(found) - _LINES} more lines</p>')
    return "".join(shown)


def marked(source: str, operations: list[str]) -> str:
    """A line of code in which the operations are underlined, or all of it."""
    parts, last = [], 0
    for begin, end in spans(source, operations) or ((0, len(source)),):
        if begin >= last:
            parts.append(f"{esc(source[last:begin])}<u>{esc(source[begin:end])}</u>")
            last = end
    return "".join(parts) + esc(source[last:])


def _values(step: StepRecord) -> str:
    done = "A right gradient was put in its place." if step.repaired else ""
    if step.ignored:
        done = f"It does not count, as the code says: {step.ignored}."
    told = " ".join(filter(None, (_sentence(step.values), done)))
    return f'<p class="values">{esc(told)}</p>' if told else ""


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _cures(step: StepRecord) -> str:
    return "".join(f'<p class="cure"><b>Instead</b> {_code(c)}</p>' for c in step.cures)


def _code(cure: str) -> str:
    """A rewriting, what is to be copied set as code."""
    code, place, rest = cure.partition(" in place of ")
    if not place or " in place of " in rest:
        return esc(cure)
    return f"<code>{esc(code)}</code>{esc(place + rest)}"


def _why(step: StepRecord) -> str:
    """The reason, what is likely behind it, and the operations named."""
    named = "".join(
        f"<li><b>{esc(text)}</b> at <code>{esc(place)}</code>: {esc(why)}</li>"
        for text, place, why in alike(step.culprits)[:8]
    )
    causes = "".join(f"<li>{esc(c)}</li>" for c in likely(step.outcome, step.why))
    causes = f'<p>Likely causes:</p><ol type="a">{causes}</ol>' if causes else ""
    counted = f"{step.touched:,} {'kink was' if step.touched == 1 else 'kinks were'} touched here"
    if all(k.relevant is not None for k in step.kinks):
        counted += f", of which {step.relevant:,} {'matters' if step.relevant == 1 else 'matter'}"
    return (
        f'<p class="soft">{esc(step.why)}</p>{causes}<details><summary>What is named, and how many '
        f'kinks there were</summary><ul>{named}</ul><p class="soft">{counted}.</p></details>'
    )
