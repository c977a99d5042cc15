"""Two runs of one program side by side: which kinks changed convention, which verdicts changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarke.report.runs.digest import places
from clarke.report.runs.markup import document, esc, tag
from clarke.report.runs.page import headline, plain

if TYPE_CHECKING:
    from clarke.report.runs.digest import Place
    from clarke.report.runs.model import Run, StepRecord
    from clarke.verdict import Verdict

_Key = tuple[str, str, str, str]
_SHOWN = 200


@dataclass(frozen=True)
class PlacePair:
    """The same operation on the same line in two runs; None where a run did not touch it.

    Attributes:
        first: In the first run.
        second: In the second.
        changed: In some step both runs touched as many kinks there, and AD chose differently.
    """

    first: Place | None
    second: Place | None
    changed: bool

    @property
    def either(self) -> Place:
        """Whichever there is."""
        found = self.first or self.second
        assert found is not None  # noqa: S101 - one of the two made the pair
        return found


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs.

    Attributes:
        first: The first run.
        second: The second.
        pairs: Places that either touched: changed conventions first.
        verdicts: Steps, by number, whose verdicts differ.
    """

    first: Run
    second: Run
    pairs: tuple[PlacePair, ...]
    verdicts: tuple[tuple[StepRecord, StepRecord], ...]

    @property
    def changed(self) -> tuple[PlacePair, ...]:
        """Places whose convention changed."""
        return tuple(p for p in self.pairs if p.changed)

    @property
    def common(self) -> tuple[PlacePair, ...]:
        """Places that both runs touched."""
        return tuple(p for p in self.pairs if p.first is not None and p.second is not None)

    @property
    def settings(self) -> dict[str, tuple[Any, Any]]:
        """Settings that differ, such as torch's version; times and places are left out."""
        a, b = self.first.settings, self.second.settings
        skip = {"started", "interpreter", "working_directory"}
        return {
            k: (a.get(k), b.get(k)) for k in {**a, **b} if k not in skip and a.get(k) != b.get(k)
        }

    @property
    def answer(self) -> str:
        """The comparison in two or three sentences."""
        right = [_all_correct(r) for r in (self.first, self.second)]
        if self.pairs and not self.common:
            conventions = (
                "The two runs have nothing in common: no line of code touched a kink in both."
            )
        elif not self.changed:
            conventions = "No kink that both runs touched changed its convention."
        else:
            count = len(self.changed)
            conventions = f"At {count:,} place{'s' * (count > 1)} autograd chose differently."
            if all(right):
                conventions += " Both choices are valid: every gradient of both runs was correct."
        if right[0] != right[1]:
            which = ("first", "second")[right[1]]
            conventions += f" Only the {which} run is free of gradients not proved correct."
        if not self.verdicts:
            return f"{conventions} No verdict changed."
        return f"{conventions} {len(self.verdicts):,} steps have another verdict."


def compare(first: Run, second: Run) -> Comparison:
    """Match two runs, places by operation, layer, file name and text of the line."""
    left = {_key(p): p for p in places(first)}
    right = {_key(p): p for p in places(second)}
    later = {s.number: s for s in second.steps}
    both = [(s, later[s.number]) for s in first.steps if s.number in later]
    different = set[_Key]()
    for a, b in both:
        ours, theirs = _choices(first, a), _choices(second, b)
        different |= {
            k
            for k, (touched, choice) in ours.items()
            if k in theirs and theirs[k][0] == touched and theirs[k][1] != choice
        }
    pairs = [PlacePair(left.get(k), right.get(k), k in different) for k in {**left, **right}]
    pairs.sort(key=lambda p: (not p.changed, -_relevant(p), -_touched(p)))
    changed = tuple((a, b) for a, b in both if a.outcome is not b.outcome)
    return Comparison(first, second, tuple(pairs), changed)


def comparison_page(found: Comparison) -> str:
    """The comparison as one page of HTML."""
    names = _names(found)
    return document(
        "clarke: two runs",
        "".join(
            (
                (
                    f"<header><h1>{esc(names[0])} and {esc(names[1])}</h1>"
                    f"{_unfinished(found, names)}"
                    f'<div class="verdict" style="--tone: var(--accent)"><div><strong>Two runs'
                    f"</strong>{esc(found.answer)}</div></div></header>"
                ),
                _both(found, names),
                _pairs(found, names),
                _verdicts(found, names),
            )
        ),
        None,
    )


def _unfinished(found: Comparison, names: list[str]) -> str:
    return "".join(
        f'<p class="banner">{esc(name)}: {esc(run.state)}</p>'
        for name, run in zip(names, (found.first, found.second), strict=True)
        if run.state
    )


def _both(found: Comparison, names: list[str]) -> str:
    rows = [
        f"<tr><td>{esc(name)}</td><td data-label='Verdict'>{esc(headline(run)[1])}</td>"
        f"<td data-label='Verdicts'>"
        + " ".join(f"{tag(v)} {n:,}" for v, n in run.counts().items())
        + f"</td><td class='n' data-label='Calls'>{len(run.steps):,}</td></tr>"
        for name, run in zip(names, (found.first, found.second), strict=True)
    ]
    differ = "".join(
        f"<dt>{esc(k.replace('_', ' '))}</dt><dd>{esc(plain(a))} and {esc(plain(b))}</dd>"
        for k, (a, b) in found.settings.items()
    )
    settings = f"<h2>Settings that differ</h2><dl>{differ}</dl>" if differ else ""
    return (
        '<section><h2>The runs</h2><table class="stack"><thead><tr><th>Run</th><th>Answer</th>'
        f'<th>Verdicts</th><th class="n">Calls</th></tr></thead><tbody>{"".join(rows)}</tbody>'
        f"</table></section>{f'<section>{settings}</section>' if settings else ''}"
    )


def _pairs(found: Comparison, names: list[str]) -> str:
    """Places by what became of them: changed, in one run only, the same."""
    shown = [p for p in found.pairs if _touched(p)]
    if not shown:
        return "<section><h2>Kinks</h2><p>Neither run touched a kink.</p></section>"
    same = [p for p in shown if p in found.common and not p.changed]
    parts = (
        ("Where autograd chose differently", [p for p in shown if p.changed]),
        (f"Touched in {names[0]} only", [p for p in shown if p.second is None]),
        (f"Touched in {names[1]} only", [p for p in shown if p.first is None]),
    )
    sections = "".join(
        f"<section><h2>{esc(title)}</h2>{_table(pairs, names)}</section>"
        for title, pairs in parts
        if pairs
    )
    if same:
        sections += (
            f"<details><summary>The same in both: {len(same):,} places</summary>"
            f"{_table(same, names)}</details>"
        )
    return sections


def _table(pairs: list[PlacePair], names: list[str]) -> str:
    rows, columns = [], [i for i in range(2) if any((p.first, p.second)[i] for p in pairs)]
    for pair in pairs[:_SHOWN]:
        place = pair.either
        cells = "".join(
            f'<td data-label="{esc(names[i])}">{_taken((pair.first, pair.second)[i])}</td>'
            for i in columns
        )
        source = f'<code class="source">{esc(place.source)}</code>' if place.source else ""
        layer = f" in {esc(place.module)}" if place.module else ""
        rows.append(
            f"<tr><td><b>{esc(Path(place.file).name)}:{place.line}</b> {esc(place.operation)}"
            f"{layer}{source}</td>{cells}</tr>"
        )
    heads = "".join(f"<th>{esc(names[i])}</th>" for i in columns)
    left = len(pairs) - _SHOWN
    more = f"<p>{left:,} more are left out.</p>" if left > 0 else ""
    return (
        f'<table class="stack"><thead><tr><th>Line</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>{more}"
    )


def _taken(place: Place | None) -> str:
    if place is None:
        return "not touched"
    return (
        f"{esc('; '.join(place.choices[:2]))}"
        f'<br><span class="soft">{place.touched:,} touched, {place.matter}</span>'
    )


def _verdicts(found: Comparison, names: list[str]) -> str:
    if not found.verdicts:
        return ""
    stretches = _stretches(found.verdicts)
    rows = "".join(
        f'<tr><td>{_numbers(part)}</td><td data-label="{esc(names[0])}">{tag(part[0][0].outcome)}'
        f'</td><td data-label="{esc(names[1])}">{tag(part[0][1].outcome)}</td></tr>'
        for part in stretches[:_SHOWN]
    )
    left = len(stretches) - _SHOWN
    more = f"<p>{left:,} more are left out.</p>" if left > 0 else ""
    return (
        '<section><h2>Steps with another verdict</h2><table class="stack"><thead><tr><th>Step</th>'
        f"<th>{esc(names[0])}</th><th>{esc(names[1])}</th></tr></thead><tbody>{rows}</tbody>"
        f"</table>{more}</section>"
    )


_Changes = list[tuple["StepRecord", "StepRecord"]]


def _stretches(verdicts: tuple[tuple[StepRecord, StepRecord], ...]) -> list[_Changes]:
    """Steps that follow each other and changed alike, put together."""
    found: list[_Changes] = []
    for a, b in verdicts:
        last = found[-1][-1] if found else None
        alike = last is not None and (last[0].outcome, last[1].outcome) == (a.outcome, b.outcome)
        if last is not None and alike and last[0].number + 1 == a.number:
            found[-1].append((a, b))
        else:
            found.append([(a, b)])
    return found


def _numbers(part: _Changes) -> str:
    first, last = part[0][0].number, part[-1][0].number
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def _names(found: Comparison) -> list[str]:
    """The folders' names, with torch's version where that differs; apart in any case."""
    names = [
        r.folder.name or which for r, which in ((found.first, "first"), (found.second, "second"))
    ]
    versions = [r.settings.get("torch") for r in (found.first, found.second)]
    if versions[0] != versions[1]:
        names = [f"{n} (torch {v})" if v else n for n, v in zip(names, versions, strict=True)]
    return names if names[0] != names[1] else [f"{names[0]} (first)", f"{names[1]} (second)"]


def _key(place: Place) -> _Key:
    text = place.source or str(place.line)
    return place.operation, place.module, Path(place.file).name, text


def _choices(run: Run, step: StepRecord) -> dict[_Key, tuple[int, str]]:
    """How many kinks a step touched at each place, and what AD chose there."""
    found = {}
    for k in step.kinks:
        text = run.sources.get((k.file, k.line), "") or str(k.line)
        found[k.operation, k.module, Path(k.file).name, text] = (k.touched, k.choice)
    return found


def _relevant(pair: PlacePair) -> int:
    return sum(p.relevant for p in (pair.first, pair.second) if p is not None)


def _touched(pair: PlacePair) -> int:
    return sum(p.touched for p in (pair.first, pair.second) if p is not None)


def _all_correct(run: Run) -> bool:
    counts: dict[Verdict, int] = run.counts()
    return bool(counts) and all(v.correct is True for v in counts)
