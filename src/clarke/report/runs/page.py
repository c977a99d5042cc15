"""A run as one page of HTML that needs no network and no other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarke.report.runs.diagnosis import diagnosis, marked
from clarke.report.runs.digest import digest, places
from clarke.report.runs.markup import document, esc, key, tag, tone
from clarke.report.runs.model import SEVERITY
from clarke.report.runs.words import label, meaning
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from clarke.report.runs.digest import Place
    from clarke.report.runs.model import Run

_LINES = 400
_FEW = 8  # lines of code that need no search


def run_page(run: Run) -> str:
    """The page: the answer, its diagnosis, then how many, when and where; settings last."""
    data = digest(run)
    body = "".join(
        (
            _header(run),
            diagnosis(run),
            _numbers(run),
            _timeline(run),
            _layers(data),
            _places(run),
            _meanings(run),
            _settings(run),
        )
    )
    return document(f"clarke: {run.name}", body, data)


def headline(run: Run) -> tuple[Verdict | None, str, str]:
    """The worst verdict, the run's answer in one sentence, and what follows from it."""
    counts = run.counts()
    worst = next(iter(counts), None)
    looked = run.looked
    if worst is None:
        return None, "No backward call was looked at.", "Nothing is claimed about this run."
    if worst.correct:
        rest = len(run.steps) - looked
        words = "Every gradient" if not rest else f"Each of the {looked:,} gradients looked at"
        kinked = looked - counts.get(Verdict.SMOOTH, 0)
        return (
            worst,
            f"{words} was correct.",
            (
                f"{looked:,} backward calls were proved to return a generalized gradient; "
                f"{f'{kinked:,}' if kinked else 'none'} of them at a kink that matters."
            ),
        )
    return (
        worst,
        f"{counts[worst]:,} of {looked:,} gradients: {label(worst)}.",
        meaning(worst),
    )


def _header(run: Run) -> str:
    worst, answer, follows = headline(run)
    program = " ".join([str(run.settings.get("program", "")), *run.settings.get("arguments", [])])
    started = str(run.settings.get("started", ""))[:16].replace("T", " ")
    return (
        f'<header><h1>{esc(run.name)}</h1><p class="soft"><code>{esc(program or run.folder)}</code>'
        f" {esc(started)}</p>{_banner(run)}"
        f'<div class="verdict" style="{tone(worst)}"><div><strong>{esc(answer)}</strong>'
        f"{'' if worst and not worst.correct else esc(follows)}{_sums(run)}</div></div></header>"
    )


def _banner(run: Run) -> str:
    """What is said first of a run that did not come to its end."""
    told = run.state
    if run.damaged > 1 or (run.damaged and run.finished):
        told = f"{told} {run.damaged} lines of the record cannot be read.".strip()
    return f'<p class="banner">{esc(told)}</p>' if told else ""


def _numbers(run: Run) -> str:
    """How many, as cards."""
    touched = sum(s.touched for s in run.steps)
    relevant = sum(s.relevant for s in run.steps)
    known = all(k.relevant is not None for s in run.steps for k in s.kinks)
    repaired = sum(s.repaired for s in run.steps)
    ignored = sum(bool(s.ignored) for s in run.steps)
    cards = [
        (f"{len(run.steps):,}", "backward calls"),
        *([(f"{run.looked:,}", "looked at")] if run.looked < len(run.steps) else []),
        *([(f"{repaired:,}", "repaired")] if repaired else []),
        *([(f"{ignored:,}", "do not count, as the code says")] if ignored else []),
        (f"{touched:,}", "kinks touched, all steps together"),
        (f"{relevant:,}", "of them matter" if known else "of them matter, as far as found out"),
        (f"{sum(s.seconds for s in run.steps):,.1f} s", "spent judging"),
    ]
    shown = "".join(f'<div class="card"><b>{n}</b><span>{w}</span></div>' for n, w in cards)
    return f'<div class="cards">{shown}</div>'


def _sums(run: Run) -> str:
    """What is said of accumulated sums, where a program accumulates."""
    sums = run.sums()
    if not sums:
        return ""
    counted = ", ".join(f"{n:,} {label(v)}" for v, n in sums.items())
    return f"<br>Sums that several calls accumulated: {esc(counted)}."


def _timeline(run: Run) -> str:
    """The strip of verdicts, where there is more than one."""
    kinds: list[Verdict | None] = list(run.counts())
    if run.looked < len(run.steps):
        kinds.append(None)
    if len(kinds) < 2:
        return ""
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-verdict="{key(k)}" style="{tone(k)}">'
        f'<span class="swatch"></span>{esc(label(k))} '
        f"{sum(s.outcome is k for s in run.steps):,}</button>"
        for k in kinds
    )
    return (
        "<section><h2>Verdicts over the run</h2>"
        '<p class="lead">Each column is a step, or several where there are many. '
        "A button hides its verdict here and in the lists.</p>"
        f'<div class="controls">{buttons}</div><div class="chart" id="timeline"></div></section>'
    )


def _layers(data: dict[str, Any]) -> str:
    """The chart of kinks, where it says more than a number would."""
    layers = data["layers"]
    steady = all(len(set(layer["touched"])) == 1 for layer in layers)
    if len(data["starts"]) < 3 or steady:
        return ""
    more = f" {data['hidden']:,} more layers are left out." if data["hidden"] else ""
    return (
        "<section><h2>Kinks by layer</h2>"
        '<p class="lead">A kink is touched when an operation sits exactly where its derivative '
        "jumps, such as a ReLU at zero; it matters when its choice of a side can change the "
        f"gradient. The scale is logarithmic.{more}</p>"
        '<div class="controls"><label for="metric">Show</label><select id="metric">'
        '<option value="relevant">kinks that matter</option>'
        '<option value="touched">touched kinks</option>'
        '<option value="share">share of elements on a kink</option></select></div>'
        '<div class="chart" id="kinks"></div><div class="controls" id="legend"></div>'
        '<div class="chart" id="heat"></div></section>'
    )


def _places(run: Run) -> str:
    """Lines of code with what touched kinks on each, merged by line."""
    lines: dict[tuple[str, int], list[Place]] = {}
    for place in places(run):
        lines.setdefault((place.file, place.line), []).append(place)
    if not lines:
        return ""
    rows = "".join(_line_row(found) for found in list(lines.values())[:_LINES])
    left = len(lines) - _LINES
    more = f"<p>{left:,} more are left out.</p>" if left > 0 else ""
    search = (
        '<div class="controls"><label for="search">Find</label>'
        '<input type="search" id="search" placeholder="layer, operation or file">'
        '<span class="soft" id="left"></span></div>'
    )
    return (
        "<section><h2>Lines of code that touched kinks</h2>"
        f"{search if len(lines) > _FEW else ''}{rows}{more}</section>"
    )


def _line_row(found: list[Place]) -> str:
    first = found[0]
    spot = f"{Path(first.file).name}:{first.line}"
    text = " ".join(f"{p.operation} {p.module}" for p in found) + f" {spot} {first.source}"
    named = [v for v in SEVERITY if any(p.named.get(v) for p in found)]
    code = marked(first.source, [p.operation for p in found]) if first.source else ""
    rows = "".join(
        f"<li><b>{esc(p.operation)}</b>{f' in {esc(p.module)}' if p.module else ''}: "
        + (
            f"{p.touched:,} touched in {_steps(p.steps)}, {p.matter}; "
            f"{esc('; '.join(p.choices[:2]))}{' …' if len(p.choices) > 2 else ''}"
            if p.touched
            else "named by a verdict"
        )
        + "</li>"
        for p in found
    )
    return (
        f'<div class="line" data-text="{esc(text)}" data-verdicts="{" ".join(map(key, named))}">'
        f'<pre class="code" title="{esc(first.file)}"><span class="spot">{esc(spot)}</span>{code}'
        f"</pre>{''.join(map(tag, named))}<ul>{rows}</ul></div>"
    )


def _steps(count: int) -> str:
    return "one step" if count == 1 else f"{count:,} steps"


def _meanings(run: Run) -> str:
    kinds: list[Verdict | None] = list(run.counts())
    if run.looked < len(run.steps):
        kinds.append(None)
    rows = "".join(f"<dt>{tag(k)}</dt><dd>{esc(meaning(k))}</dd>" for k in kinds)
    return f"<details><summary>What the verdicts mean</summary><dl>{rows}</dl></details>"


def _settings(run: Run) -> str:
    pairs = {**run.settings, **{f"at the end: {k}": v for k, v in run.summary.items()}}
    rows = "".join(
        f"<dt>{esc(name.replace('_', ' '))}</dt><dd>{esc(plain(value))}</dd>"
        for name, value in pairs.items()
        if name != "format" and not isinstance(value, dict) and value not in (None, [], "")
    )
    return (
        f"<details><summary>Settings and versions</summary><dl>{rows}</dl></details>"
        f"<footer>Read from <code>{esc(run.folder)}</code>. Written by clarke.</footer>"
    )


def plain(value: object) -> str:
    """A setting in words."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(str, value))
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)
