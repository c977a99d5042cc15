"""Small pieces of HTML that every page is made of."""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from clarke.report.runs.words import label

if TYPE_CHECKING:
    from clarke.verdict import Verdict

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


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
