"""A run as one page of HTML that needs no network and no other file."""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarke.report.runs.digest import NOTED, digest, noted, places
from clarke.report.runs.drawing import drawing
from clarke.report.runs.model import SEVERITY
from clarke.report.runs.words import label, meaning
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from clarke.report.runs.digest import Noted, Place
    from clarke.report.runs.model import Run

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def run_page(run: Run) -> str:
    """The page: verdict, timeline, kinks by layer, lines of code, steps of note, settings."""
    data = digest(run)
    body = "".join(
        (
            _header(run),
            _timeline(run),
            _layers(run, data["hidden"]),
            _places(run),
            _steps(run),
            _meanings(run),
            _settings(run),
        )
    )
    return document(f"clarke: {run.name}", body, data)


def document(title: str, body: str, data: dict[str, Any] | None) -> str:
    """A whole page around a body; with data, also the script that draws it."""
    assets = resources.files("clarke.report") / "assets"
    style = (assets / "run.css").read_text("utf-8")
    script = ""
    if data is not None:
        # "<" cannot end the script element early when written as \u003c.
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        code = (assets / "run.js").read_text("utf-8")
        script = (
            f'<div id="tip" role="status"></div>'
            f'<script type="application/json" id="data">{text}</script><script>{code}</script>'
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{esc(title)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main>{script}</body></html>\n"
    )


def esc(text: object) -> str:
    """Text for HTML, attributes included."""
    return html.escape(str(text), quote=True)


def tone(verdict: Verdict | None) -> str:
    """The style that gives an element its verdict's colour."""
    return f"--tone: var(--{key(verdict)})"


def key(verdict: Verdict | None) -> str:
    """What a verdict is called in the page's data and style."""
    return "NONE" if verdict is None else verdict.name


def tag(verdict: Verdict | None) -> str:
    """A verdict's short name in its colour."""
    return (
        f'<span class="tag" style="{tone(verdict)}"><span class="swatch"></span>'
        f"{esc(label(verdict))}</span>"
    )


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
                f"{kinked:,} of them at a kink that matters."
            ),
        )
    return (
        worst,
        f"{counts[worst]:,} of {looked:,} gradients: {label(worst)}.",
        meaning(worst),
    )


def _header(run: Run) -> str:
    worst, answer, follows = headline(run)
    touched = sum(s.touched for s in run.steps)
    relevant = sum(s.relevant for s in run.steps)
    program = " ".join([str(run.settings.get("program", "")), *run.settings.get("arguments", [])])
    cards = [
        (f"{len(run.steps):,}", "backward calls"),
        (f"{run.looked:,}", "looked at"),
        (f"{touched:,}", "kinks touched"),
        (f"{relevant:,}", "of them relevant"),
        (f"{sum(s.seconds for s in run.steps):,.1f} s", "spent judging"),
    ]
    shown = "".join(f'<div class="card"><b>{n}</b><span>{w}</span></div>' for n, w in cards)
    started = esc(run.settings.get("started", ""))
    state = ""
    if not run.finished:
        state = " The run did not reach its end; all finished steps are here."
    elif run.summary.get("status"):
        state = f" The program ended early: {esc(run.summary['ended'])}."
    return (
        f'<header><h1>{esc(run.name)}</h1><p class="soft"><code>{esc(program or run.folder)}</code>'
        f" {started}{state}</p>"
        f'<div class="verdict" style="{tone(worst)}"><div><strong>{esc(answer)}</strong>'
        f'{esc(follows)}{_sums(run)}</div></div><div class="cards">{shown}</div></header>'
    )


def _sums(run: Run) -> str:
    """What is said of accumulated sums, where a program accumulates."""
    sums = run.sums()
    if not sums:
        return ""
    counted = ", ".join(f"{n:,} {label(v)}" for v, n in sums.items())
    return f"<br>Sums that several calls accumulated: {esc(counted)}."


def _timeline(run: Run) -> str:
    kinds: list[Verdict | None] = list(run.counts())
    if run.looked < len(run.steps):
        kinds.append(None)
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-verdict="{key(k)}" style="{tone(k)}">'
        f'<span class="swatch"></span>{esc(label(k))} '
        f"{sum(s.outcome is k for s in run.steps):,}</button>"
        for k in kinds
    )
    return (
        "<section><h2>Verdicts over the run</h2>"
        '<p class="lead">Each column is a step, or several where there are many. '
        "A button hides its verdict here and in the lists below.</p>"
        f'<div class="controls">{buttons}</div><div class="chart" id="timeline"></div></section>'
    )


def _layers(run: Run, hidden: int) -> str:
    if not any(s.kinks for s in run.steps):
        return "<section><h2>Kinks</h2><p>No kink was touched in this run.</p></section>"
    more = f" {hidden:,} more layers are left out." if hidden else ""
    return (
        "<section><h2>Kinks by layer</h2>"
        '<p class="lead">A kink is touched when an operation sits exactly where its derivative '
        "jumps, such as a ReLU at zero; it is relevant when its choice of a side can change the "
        f"gradient. Logarithmic scale.{more}</p>"
        '<div class="controls"><label for="metric">Show</label><select id="metric">'
        '<option value="relevant">relevant kinks</option>'
        '<option value="touched">touched kinks</option>'
        '<option value="share">share of elements on a kink</option></select></div>'
        '<div class="chart" id="kinks"></div><div class="controls" id="legend"></div>'
        '<h3>Layers and steps</h3><div class="chart" id="heat"></div></section>'
    )


def _places(run: Run) -> str:
    found = places(run)
    if not found:
        return ""
    rows = "".join(_place_row(p) for p in found[:400])
    more = f"<p>{len(found) - 400:,} more are left out.</p>" if len(found) > 400 else ""
    return (
        "<section><h2>Lines of code</h2>"
        '<p class="lead">Where kinks were touched, lines that a verdict names first.</p>'
        '<div class="controls"><label for="search">Find</label>'
        '<input type="search" id="search" placeholder="layer, operation or file">'
        '<span class="soft" id="left"></span></div>'
        '<table class="stack"><thead><tr><th>Line</th><th>Operation</th><th>Layer</th>'
        '<th class="n">Steps</th><th class="n">Touched</th><th class="n">Relevant</th>'
        f"<th>AD takes</th><th>Named by</th></tr></thead><tbody>{rows}</tbody></table>{more}"
        "</section>"
    )


def _place_row(place: Place) -> str:
    spot = f"{Path(place.file).name}:{place.line}"
    text = f"{spot} {place.operation} {place.module} {place.source}"
    named = " ".join(tag(v) for v in SEVERITY if place.named.get(v))
    kinds = " ".join(v.name for v in place.named)
    source = f'<code class="source">{esc(place.source)}</code>' if place.source else ""
    choices = "; ".join(place.choices[:2]) + (" …" if len(place.choices) > 2 else "")
    return (
        f'<tr data-text="{esc(text)}" data-verdicts="{kinds}">'
        f'<td title="{esc(place.file)}"><b>{esc(spot)}</b>{source}</td>'
        f'<td data-label="Operation"><span class="code">{esc(place.operation)}</span></td>'
        f'<td data-label="Layer">{esc(place.module)}</td>'
        f'<td class="n" data-label="Steps">{place.steps:,}</td>'
        f'<td class="n" data-label="Touched">{place.touched:,}</td>'
        f'<td class="n" data-label="Relevant">{place.relevant:,}</td>'
        f'<td data-label="AD takes">{esc(choices)}</td><td data-label="Named by">{named}</td></tr>'
    )


def _steps(run: Run) -> str:
    found = noted(run)
    if not found:
        return ""
    left = len(found) - NOTED
    more = f" {left:,} more groups of steps are left out." if left > 0 else ""
    articles = "".join(_article(run, group) for group in found[:NOTED])
    return (
        "<section><h2>Steps that need a look</h2>"
        f'<p class="lead">Those not proved correct, the worst first.{more}</p>{articles}</section>'
    )


def _article(run: Run, group: Noted) -> str:
    step = group.first
    named, last = "", ""
    for c in step.culprits[:8]:
        source = run.sources.get((c.file, c.line), "")
        shown = _source(source if source != last else "")
        named += f"<li><b>{esc(c.operation)}</b> at <code>{esc(c.place)}</code>: {esc(c.reason)}"
        named += f"{shown}</li>"
        last = source
    reason = step.joint_reason if step.outcome is not step.verdict else step.reason
    at = f"{Path(step.file).name}:{step.line}" if step.file else ""
    picture = ""
    if step.picture is not None:
        picture = drawing(step.picture)
    repaired = " The gradient was replaced by a correct one." if step.repaired else ""
    repaired += "".join(
        f'</p><p class="cure"><b>{head}</b> {esc(text)}'
        for head, text in (("Values:", step.values), *(("Instead:", c) for c in step.cures))
        if text
    )
    whose = "" if step.outcome is step.verdict else " (the sum accumulated so far)"
    text = f"step {step.number} {' '.join(c.place for c in step.culprits)}"
    return (
        f'<article data-text="{esc(text)}" data-verdicts="{key(step.outcome)}"><div>'
        f"<h3>Step {step.number:,}{whose} {tag(step.outcome)}</h3>{_alike(group.numbers)}"
        f"<p>{esc(reason)}{repaired}</p><ul>{named}</ul>"
        f'<p class="soft">{step.touched:,} kinks touched, {step.relevant:,} relevant; '
        f"backward called at <code>{esc(at)}</code></p></div>{picture}</article>"
    )


def _alike(numbers: tuple[int, ...]) -> str:
    if len(numbers) == 1:
        return ""
    shown = ", ".join(f"{n:,}" for n in numbers[1:13]) + (" …" if len(numbers) > 13 else "")
    return f'<p class="soft">The same in {len(numbers) - 1:,} more steps: {shown}</p>'


def _source(text: str) -> str:
    return f"<pre>{esc(text)}</pre>" if text else ""


def _meanings(run: Run) -> str:
    kinds: list[Verdict | None] = list(run.counts())
    if run.looked < len(run.steps):
        kinds.append(None)
    rows = "".join(f"<dt>{tag(k)}</dt><dd>{esc(meaning(k))}</dd>" for k in kinds)
    return f"<section><h2>What the verdicts mean</h2><dl>{rows}</dl></section>" if rows else ""


def _settings(run: Run) -> str:
    pairs = {**run.settings, **{f"at the end: {k}": v for k, v in run.summary.items()}}
    rows = "".join(
        f"<dt>{esc(name.replace('_', ' '))}</dt><dd>{esc(_plain(value))}</dd>"
        for name, value in pairs.items()
        if (name != "format" and not isinstance(value, (dict, list))) or name == "arguments"
    )
    return (
        f"<section><h2>Settings</h2><dl>{rows}</dl></section>"
        f"<footer>Read from <code>{esc(run.folder)}</code>. Written by clarke.</footer>"
    )


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "(none)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
