"""The outcome of a whole audit: plain data, plain text of at most 80 columns."""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.audit.statistics import PlaceStatistics
    from clarke.audit.step import Step

_WIDTH = 80
# Whose first step a summary names.
NAMED: Final = (Verdict.NOT_CLARKE, Verdict.NONFINITE, Verdict.NOT_LIPSCHITZ)


@dataclass(frozen=True)
class Summary:
    """What an audit found.

    Attributes:
        calls: Backward calls made.
        judged: Backward calls looked at.
        verdicts: How often each verdict was given to a single call.
        joint: How often each verdict was given to a sum of several accumulated gradients, as it
            stood after the last of them.
        places: Statistics of every operation with kinks, by place.
        seconds: Time spent on judging, in all.
        repaired: Gradients that were replaced.
        firsts: The first step that was wrong, the first that was not finite, and the first where
            there is no gradient.
    """

    calls: int
    judged: int
    verdicts: Mapping[Verdict, int]
    joint: Mapping[Verdict, int]
    places: tuple[PlaceStatistics, ...]
    seconds: float
    repaired: int
    firsts: tuple[Step, ...] = ()

    @property
    def correct(self) -> bool | None:
        """True if every judged gradient was proved correct, False if any was proved wrong.

        A sum of accumulated gradients is one as well.
        """
        found = [v.correct for by in (self.verdicts, self.joint) for v, n in by.items() if n]
        if False in found:
            return False
        return None if None in found or not found else True

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain data for JSON."""
        return {
            "calls": self.calls,
            "judged": self.judged,
            "correct": self.correct,
            "verdicts": {v.name: n for v, n in self.verdicts.items()},
            "joint": {v.name: n for v, n in self.joint.items()},
            "places": [p.to_dict() for p in self.places],
            "seconds": self.seconds,
            "repaired": self.repaired,
            "firsts": [s.to_dict() for s in self.firsts],
        }

    def _repr_html_(self) -> str:
        """For notebooks: the text, in which nothing is HTML of its own."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def __repr__(self) -> str:
        """What a prompt shows: the same as `print`."""
        return str(self)

    def __str__(self) -> str:
        lines = [f"{self.calls} backward calls, {self.judged} judged in {self.seconds:.1f} s"]
        if self.verdicts:
            lines += _wrap("verdicts", counts_text(self.verdicts))
        if self.joint:
            lines += _wrap("sums", counts_text(self.joint))
        if self.repaired:
            lines.append(f"  repaired  {self.repaired}")
        for step in self.firsts:
            lines += _wrap("first", first_text(step))
            lines += [line for c in step.cures for line in _wrap("instead", c)]
        if self.places:
            lines += ["", *places_text(self.places)]
        return "\n".join(lines)


def first_text(step: Step) -> str:
    """What was found in a step, and where."""
    places = Counter(
        f"{c.operation} at {Path(c.location.file).name}:{c.location.line}" for c in step.culprits
    )
    named = ", ".join(f"{n} x {place}" if n > 1 else place for place, n in places.items())
    verdict = "" if step.verdict is None else step.verdict.name
    done = " (repaired)" if step.repaired else ""
    return f"{verdict} in step {step.number}{done}: {named or step.reason}"


def counts_text(verdicts: Mapping[Verdict, int]) -> str:
    """The numbers of verdicts on one line, in the order of the enumeration."""
    return ", ".join(f"{verdicts[v]} {v.name}" for v in Verdict if verdicts.get(v))


def _wrap(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"  {label:10}", subsequent_indent=" " * 12)


def place_name(place: PlaceStatistics) -> str:
    """Module path where there is one, else file and line."""
    return place.module or f"{Path(place.file).name}:{place.line}"


def places_text(places: tuple[PlaceStatistics, ...]) -> list[str]:
    """A table with one line for each place, in the manner of the paper's Table 2."""
    rows = [
        (
            place_name(p),
            p.operation,
            f"{p.elements_per_step:.0f}",
            _percent(100 * p.touched_share),
            str(p.steps_touched),
            str(p.steps_relevant) + ("+" if p.steps_open else ""),
            f"{p.mean_relevant:.2f}" if p.steps_relevant else "-",
        )
        for p in places
    ]
    heads = ("place", "operation", "elements", "touched%", "steps", "relevant", "mean")
    widths = [max(len(heads[i]), *(len(r[i]) for r in rows)) for i in range(len(heads))]
    # Names give way so that the numbers stay within the width.
    spare = _WIDTH - 2 - sum(widths[2:]) - 2 * (len(heads) - 1)
    widths[1] = min(widths[1], max(12, spare - min(widths[0], max(spare // 2, 8))))
    widths[0] = min(widths[0], max(8, spare - widths[1]))
    lines = []
    for row in (heads, *rows):
        left = [_end(row[0], widths[0]).ljust(widths[0]), row[1][: widths[1]].ljust(widths[1])]
        right = [row[i].rjust(widths[i]) for i in range(2, len(heads))]
        lines.append(("  " + "  ".join([*left, *right])).rstrip())
    lines += textwrap.wrap(
        "elements: outputs per step; touched%: of these at a kink; steps: in which any was; "
        "relevant: steps in which a touched kink could change the gradient"
        + (
            "; +: and steps where that was not found out"
            if any(p.steps_open for p in places)
            else ""
        )
        + "; mean: how many kinks could, in those steps.",
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
    )
    return lines


def _percent(value: float) -> str:
    """Two digits, or three of a hundred."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _end(text: str, width: int) -> str:
    """The text, its beginning cut off if it is too long."""
    return text if len(text) <= width else "…" + text[-(width - 1) :]
