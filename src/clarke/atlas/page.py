"""The atlas as a Markdown page: pure functions of its rows."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from clarke.atlas.compare import Answer, Change, Effect
from clarke.atlas.model import AtlasRow, Standing, Vector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TITLES = ("call", "point", "limits of gradients", "reverse mode", "forward mode", "answer is")
CHANGE_TITLES = ("call", "point", "mode", "before", "which is", "after", "which is")
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

_DIFFERENCES = """\
# What moved from torch {before} to {after}

Written by `clarke ops --json > OTHER.json` under the one version and
`clarke ops --diff OTHER.json --markdown` under the other. Each line is an answer of autograd that
differs, before and after, and what it is worth there: an answer is valid if it is the gradient, a
limiting gradient or a Clarke element.

{counts}

That an operation's answer is valid does not make a program's gradient valid: see the programs of
several operations among the lines. To see what a change does to your program, run `clarke run`
under both versions and `clarke report` on the two runs.
{sections}"""


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
    reverse, standing = vector_text(row.reverse), _short(row.standing)
    return (row.call, row.kink, limits or "-", reverse, forward, standing)


def table(rows: Iterable[AtlasRow]) -> str:
    """The table alone."""
    return _markdown(TITLES, map(cells, rows))


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


def change_cells(change: Change) -> tuple[str, ...]:
    """The texts of one line of differences."""
    sides = (_answer_cells(answer) for answer in (change.before, change.after))
    return (change.call, change.kink, change.mode.value, *(text for pair in sides for text in pair))


def _answer_cells(answer: Answer | None) -> tuple[str, str]:
    return (
        ("none", "-") if answer is None else (vector_text(answer.vector), _short(answer.standing))
    )


def by_effect(changes: Sequence[Change]) -> Iterator[tuple[Effect, tuple[Change, ...]]]:
    """The changes of each kind that occurs, what matters most first."""
    for effect in Effect:
        of_it = tuple(change for change in changes if change.effect is effect)
        if of_it:
            yield effect, of_it


def differences_page(changes: Sequence[Change], before: str, after: str) -> str:
    """The differences between two versions as a page."""
    groups = tuple(by_effect(changes))
    sections = (
        f"\n## {effect.value}\n\n{_markdown(CHANGE_TITLES, map(change_cells, of_it))}\n"
        for effect, of_it in groups
    )
    return _DIFFERENCES.format(
        before=before,
        after=after,
        counts="\n".join(f"- {effect.value}: {len(of_it)}" for effect, of_it in groups)
        or "Nothing moved.",
        sections="".join(sections),
    )


def _short(standing: Standing) -> str:
    return standing.value.split(":", maxsplit=1)[0]


def _markdown(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    return "\n".join([*head, *("| " + " | ".join(map(_escape, line)) + " |" for line in lines)])


def _escape(text: str) -> str:
    return text.replace("\\|", "|").replace("|", "\\|")
