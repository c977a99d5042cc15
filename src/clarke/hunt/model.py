"""What a hunt returns: finds, and what was and was not visited."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clarke.layout import Line, laid
from clarke.report.text import report_lines
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from clarke.decide.model import Culprit
    from clarke.hunt.subject import Place
    from clarke.report import Report


@dataclass(frozen=True, eq=False)
class Find:
    """A point at which the gradient is wrong, made as simple as it could be.

    Attributes:
        report: What `clarke.check` says there: verdict, gradient, right value, culprits, proof.
        inputs: The arguments of the function; those that require gradients do here, too.
        script: A short program that shows it with torch alone.
    """

    report: Report
    inputs: tuple[Any, ...]
    script: str

    def __str__(self) -> str:
        return laid(self.lines())

    def lines(self) -> list[Line]:
        """Its text, to be wrapped where it is printed."""
        shown = [Line(in_words(x), f"  input {i}   ", " " * 12) for i, x in enumerate(self.inputs)]
        return [*shown, *(line.under("  ") for line in report_lines(self.report))]

    def __repr__(self) -> str:
        """What a prompt shows: the same as `print`."""
        return str(self)


@dataclass(frozen=True, eq=False)
class Hunt:
    """The outcome of `clarke.hunt`; true when it found something.

    Attributes:
        finds: One for each distinct fault: wrong gradients, and NaN or infinity where a valid
            gradient exists.
        nonfinite: Points at which value or gradient is NaN or infinite and nothing else is right,
            one for each place: a quotient 0/0, a logarithm of 0. Nearby all is finite. What to
            write instead is in ``.report.cures``.
        nowhere: The same where the gradient is finite and there is nothing to return (a step), a
            warning rather than a fault of autograd's.
        extreme: Faults at entries of 10 000 and more, or next to nothing, where much overflows
            that is sound elsewhere; and values that overflow at others.
        visited: Operations with kinks that were touched.
        unreached: Those seen of which no kink was touched.
        points: How many points were run.
        undecided: At how many of them `check` could not decide, those of `extreme` size apart.
        seconds: What it took.
        doubt: Why `check` could not decide at the first of them; "" where it could everywhere.
    """

    finds: tuple[Find, ...]
    nowhere: tuple[Find, ...]
    extreme: tuple[Find, ...]
    visited: tuple[Place, ...]
    unreached: tuple[Place, ...]
    points: int
    undecided: int
    seconds: float
    doubt: str = ""
    nonfinite: tuple[Find, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.finds)

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain data for JSON."""
        return {
            "finds": [_find_to_dict(f) for f in self.finds],
            "nonfinite": [_find_to_dict(f) for f in self.nonfinite],
            "nowhere": [_find_to_dict(f) for f in self.nowhere],
            "extreme": [_find_to_dict(f) for f in self.extreme],
            "visited": [str(p) for p in self.visited],
            "unreached": [str(p) for p in self.unreached],
            "points": self.points,
            "undecided": self.undecided,
            "doubt": self.doubt,
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        """What a prompt shows: the same as `print`."""
        return str(self)

    def __str__(self) -> str:
        return laid(self.lines())

    def lines(self) -> list[Line]:
        """Its text, to be wrapped where it is printed."""
        lines = [Line(_headline(self))]
        for number, find in enumerate(self.finds, start=1):
            title = f"{number}. {_FAULTS.get(find.report.verdict, 'a fault')}"
            lines += [Line(""), Line(title), *find.lines()]
        lines.append(Line(""))
        apart = ((_HOLE, self.nonfinite), (_NOTHING, self.nowhere), ("overflow", self.extreme))
        for title, several in apart:
            for find in several:
                lines += _briefly(title, find)
        lines += _listed("kinks visited:  ", self.visited)
        lines += _listed("kinks unreached:", self.unreached)
        if self.undecided:
            text = f"undecided at {self.undecided} of the points that looked suspicious"
            text += f"; at the first: {self.doubt}" if self.doubt else ""
            lines.append(Line(text))
        return lines if lines[-1].text else lines[:-1]


_HOLE = "NaN or infinity"
_NOTHING = "nothing to return (a step or an infinite slope)"
_FAULTS = MappingProxyType(
    {
        Verdict.NOT_CLARKE: "a wrong gradient",
        Verdict.NONFINITE: "a gradient that is not finite, although a valid one exists",
    }
)


def _headline(hunt: Hunt) -> str:
    if hunt.finds:
        many = f"{len(hunt.finds)} fault" + ("s" if len(hunt.finds) > 1 else "")
        return f"FOUND {many} of the gradient, at {hunt.points} points."
    holes = len(hunt.nonfinite)
    more = f"NaN or infinity at {holes} place{'s' if holes > 1 else ''}. " if holes else ""
    return (
        f"Found no wrong gradient at {hunt.points} points. {more}That is no proof: "
        "clarke.explain gives one, where a theorem applies."
    )


def _briefly(title: str, find: Find) -> list[Line]:
    """A point that is no fault of autograd's in a line, and what to write instead."""
    places = ", ".join(_place(c) for c in find.report.culprits[:1])
    first = f"{title}: {places}, with the inputs " + "; ".join(in_words(x) for x in find.inputs)
    cures = (Line(c, f"  {'instead':10}", " " * 12) for c in find.report.cures[:1])
    return [Line(first, "", "  "), *cures]


def _place(culprit: Culprit) -> str:
    name = culprit.location.file.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{culprit.operation} at {name}:{culprit.location.line}"


def _listed(title: str, places: tuple[Place, ...]) -> list[Line]:
    if not places:
        return []
    return [Line(", ".join(str(p) for p in places), f"{title} ", " " * (len(title) + 1))]


def _find_to_dict(find: Find) -> dict[str, Any]:
    inputs = [x.tolist() if hasattr(x, "tolist") else repr(x) for x in find.inputs]
    return {"report": find.report.to_dict(), "inputs": inputs, "script": find.script}


def in_words(value: Any) -> str:
    """An input as a person would write it."""
    return str(number(value.tolist())) if hasattr(value, "tolist") else repr(value)


def number(value: Any) -> Any:
    """Nested lists of numbers, where whole numbers have no digits behind the point."""
    if isinstance(value, list):
        return [number(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value
