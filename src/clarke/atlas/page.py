"""The atlas as a Markdown page: pure functions of its rows."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from clarke.atlas.compare import Change
from clarke.atlas.model import AtlasRow, Standing, Vector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TITLES = ("call", "point", "limits of gradients", "reverse mode", "forward mode", "answer is")
_SHOWN = 2
_PAGE = """\
# What PyTorch returns at kinks

Written by `clarke ops --markdown > docs/ops.md`, measured in float64 on torch {version}:
{count} points. `clarke ops --diff OTHER.json` compares with another version's `clarke ops --json`.

Each line is one call at one point. Calls with several results are added up with weights 1, -0.9,
0.8, ... so that entries stay apart. *Limits of gradients* are limits of autograd's gradients along
rays to the point: for one number the left and the right slope; of more than {shown} only the
number is given; "-" means that they do not settle. *Answer is* says what reverse mode's gradient
is worth.

{standings}

{table}

## Not valid

{wrong}

## Forward and reverse mode disagree

{modes}
"""


def vector_text(vector: Vector | None) -> str:
    """A vector in four digits."""
    if vector is None:
        return "none"
    shown = ", ".join(f"{v + 0.0:.4g}" if math.isfinite(v) else str(v) for v in vector)
    return f"({shown})" if len(vector) > 1 else shown


def cells(row: AtlasRow) -> tuple[str, ...]:
    """The texts of one line."""
    limits = " \\| ".join(vector_text(v) for v in row.limits[:_SHOWN])
    if len(row.limits) > _SHOWN:
        limits = f"{len(row.limits)} found"
    forward = "same" if row.modes_agree else vector_text(row.forward)
    standing = row.standing.value.split(":", maxsplit=1)[0]
    return (row.call, row.kink, limits or "-", vector_text(row.reverse), forward, standing)


def table(rows: Iterable[AtlasRow]) -> str:
    """The table alone."""
    lines = ["| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"]
    lines += ["| " + " | ".join(_escape(c) for c in cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def page(rows: Sequence[AtlasRow], version: str) -> str:
    """The whole page."""
    counted = Counter(row.standing for row in rows)
    standings = "\n".join(f"- {s.value}: {counted[s]}" for s in Standing if counted[s])
    bad = (Standing.WRONG, Standing.FORMULA)
    wrong = [
        f"- `{r.call}` at {r.kink}: {vector_text(r.reverse)}; {r.standing.value}"
        for r in rows
        if r.standing in bad
    ]
    modes = [
        f"- `{r.call}` at {r.kink}: reverse {vector_text(r.reverse)}, "
        f"forward {vector_text(r.forward)}"
        for r in rows
        if r.modes_agree is False
    ]
    return _PAGE.format(
        version=version,
        count=len(rows),
        shown=_SHOWN,
        standings=standings,
        table=table(rows),
        wrong="\n".join(wrong) or "None.",
        modes="\n".join(modes) or "None.",
    )


def differences_page(changes: Sequence[Change], before: str, after: str) -> str:
    """The differences between two versions as a page."""
    lines = [
        f"# What moved from torch {before} to {after}",
        "",
        "Written by `make atlas-214`: `clarke ops --json` under the one version, and",
        "`clarke ops --diff OTHER.json --markdown` under the other.",
        f"{len(changes)} differences:",
        "",
        *(f"- `{c.call}` at {c.kink}, {c.what}: {c.before} → {c.after}" for c in changes),
        "",
    ]
    return "\n".join(lines)


def _escape(text: str) -> str:
    return text.replace("\\|", "|").replace("|", "\\|")
