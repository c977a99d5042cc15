"""What `explain` returns: a theorem or what blocks it, hypothesis by hypothesis."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from typing import Any

from clarke.capture import Location
from clarke.layout import Line, laid
from clarke.theorems.facts import Facts
from clarke.theorems.model import Bias, Condition, Strength, Theorem
from clarke.theorems.text import place

_FAULTS = 4
_LAYERS = 16
_TORCHS = f"{os.sep}torch{os.sep}nn{os.sep}"


@dataclass(frozen=True)
class Blame:
    """One place at which a hypothesis fails.

    Attributes:
        operation: Operator name.
        location: Module and line.
        reason: What is wrong there.
        fix: What would repair it, "" if nothing simple would.
    """

    operation: str
    location: Location
    reason: str
    fix: str = ""

    @property
    def place(self) -> str:
        """Module, or file and line outside of modules."""
        if self.location.module and _TORCHS in self.location.file:
            return self.location.module  # no line of the user's
        where = f"{self.location.file.rsplit('/', 1)[-1]}:{self.location.line}"
        return f"{self.location.module} ({where})" if self.location.module else where


@dataclass(frozen=True)
class Hypothesis:
    """One row of the table.

    Attributes:
        condition: What must hold.
        holds: Whether it does.
        needed_by: The theorems that ask for it.
        blames: Where it fails.
    """

    condition: Condition
    holds: bool
    needed_by: tuple[Theorem, ...]
    blames: tuple[Blame, ...] = ()


@dataclass(frozen=True)
class LayerFacts:
    """What was found at one operation with kinks.

    Attributes:
        operation: Operator name.
        location: Module and line.
        shape: Shape of its pre-activations, None if unknown.
        bias: How biases reach them.
        leaf: Name of the bias, "" if there is none.
        proxies: The kinks with AD's weight of the upper piece (lambda), as text.
        upper: The lambda that fits all its kinks, None if none does.
    """

    operation: str
    location: Location
    shape: tuple[int, ...] | None
    bias: Bias
    leaf: str
    proxies: str
    upper: float | None


@dataclass(frozen=True)
class Explanation:
    """Which theorem holds for all inputs and parameters, and what blocks the others.

    Attributes:
        theorem: The strongest statement whose hypotheses hold; None if none applies.
        strength: What AD's gradient then is; None without a theorem.
        conclusion: One sentence.
        hypotheses: The table.
        layers: The operations with kinks, in evaluation order.
        assumptions: What was taken from this run beyond its shapes.
        structure: What all this follows from: operations, kinks, what reaches them.
    """

    theorem: Theorem | None
    strength: Strength | None
    conclusion: str
    hypotheses: tuple[Hypothesis, ...]
    layers: tuple[LayerFacts, ...]
    assumptions: tuple[str, ...]
    structure: Facts

    @property
    def always_correct(self) -> bool:
        """Whether AD is correct for all inputs and parameters, with no check at run time."""
        return self.theorem is not None and self.theorem.unconditional

    def hypothesis(self, condition: Condition) -> Hypothesis:
        """One row of the table."""
        return next(h for h in self.hypotheses if h.condition is condition)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "theorem": None if self.theorem is None else self.theorem.name,
            "always_correct": self.always_correct,
            "strength": None if self.strength is None else self.strength.name,
            "conclusion": self.conclusion,
            "assumptions": list(self.assumptions),
            "hypotheses": [
                {
                    "condition": h.condition.name,
                    "text": h.condition.value,
                    "holds": h.holds,
                    "needed_by": [t.name for t in h.needed_by],
                    "blames": [
                        {
                            "operation": b.operation,
                            "module": b.location.module,
                            "file": b.location.file,
                            "line": b.location.line,
                            "reason": b.reason,
                            "fix": b.fix,
                        }
                        for b in h.blames
                    ],
                }
                for h in self.hypotheses
            ],
            "layers": [
                {
                    "operation": layer.operation,
                    "module": layer.location.module,
                    "file": layer.location.file,
                    "line": layer.location.line,
                    "shape": None if layer.shape is None else list(layer.shape),
                    "bias": layer.bias.name,
                    "leaf": layer.leaf,
                    "proxies": layer.proxies,
                    "lambda": layer.upper,
                }
                for layer in self.layers
            ],
        }

    def _repr_html_(self) -> str:
        """For notebooks: the text, in which nothing is HTML of its own."""
        return f"<pre>{html.escape(str(self))}</pre>"

    @property
    def in_the_way(self) -> tuple[Hypothesis, ...]:
        """What has to be mended for autograd to be right for all inputs and parameters.

        The fewest hypotheses that fail of a theorem which needs no check at run time; none where
        one holds.
        """
        if self.always_correct:
            return ()
        failing = [
            tuple(h for h in self.hypotheses if not h.holds and theorem in h.needed_by)
            for theorem in reversed(Theorem)
            if theorem.unconditional
        ]
        return min(filter(None, failing), key=len, default=())

    def __repr__(self) -> str:
        """What a prompt shows: the same as `print`."""
        return str(self)

    def __str__(self) -> str:
        return laid(self.lines())

    def lines(self) -> list[Line]:
        """Its text, to be wrapped where it is printed."""
        if self.theorem is None:
            answer = "NOT COVERED"
        elif self.always_correct:
            answer = f"ALWAYS RIGHT ({self.theorem.value})"
        else:
            answer = f"RIGHT WHERE CHECKED ({self.theorem.value})"
        lines = [Line(f"{answer}: {self.conclusion}", "", "  ")]
        if self.in_the_way:
            lines.append(Line("for all values it would be right if these were mended:", "  ", "  "))
        for h in self.in_the_way:
            lines.append(Line(f"{h.condition.value}: no", "  ", "    "))
            lines += _blame_lines(h.blames)
        for a in self.assumptions:
            lines.append(Line(f"assumed: {a}", "  ", "    "))
        return lines

    def details(self) -> str:
        """Every hypothesis, with the theorems that need it, and every operation with kinks."""
        return laid(self.detail_lines())

    def detail_lines(self) -> list[Line]:
        """The text of `details`, to be wrapped where it is printed."""
        lines = [Line(f"  {'hypothesis':46}holds  needed by")]
        for h in self.hypotheses:
            needed = ", ".join(_short(t) for t in h.needed_by)
            row = f"  {h.condition.value:46}{'yes' if h.holds else 'NO':5}  {needed}"
            lines.append(Line(row.strip(), "  ", " " * 55))
            lines += _blame_lines(h.blames)
        if self.layers:
            lines += [Line(""), Line(f"{len(self.layers)} operations with kinks", "  ")]
            lines += _layer_lines(self.layers)
        return lines


def _short(theorem: Theorem) -> str:
    return {Theorem.ANALYTIC: "0", Theorem.BIAS_SHIFT: "shift"}.get(
        theorem, theorem.value.removeprefix("Theorem ")
    )


def _blame_lines(blames: tuple[Blame, ...]) -> list[Line]:
    """What is wrong where; places with the same fault are told once."""
    by_fault: dict[tuple[str, str], list[Blame]] = {}
    for b in blames:
        by_fault.setdefault((b.operation, b.reason), []).append(b)
    shown = list(by_fault.values())[:_FAULTS]
    lines: list[Line] = []
    for group in shown:
        b = group[0]
        others = len(group) - 1
        more = f" and {others} more place{'s' * (others > 1)}" if others else ""
        lines.append(Line(f"{b.operation} at {b.place}{more}: {b.reason}", "    - ", "      "))
        if b.fix:
            lines.append(Line(f"fix: {b.fix}", "      ", "        "))
    if len(shown) < len(by_fault):
        rest = sum(len(g) for g in list(by_fault.values())[_FAULTS:])
        lines.append(Line(f"and {rest} more places", "    - "))
    return lines


def _layer_lines(layers: tuple[LayerFacts, ...]) -> list[Line]:
    shown = layers if len(layers) <= _LAYERS else layers[: _LAYERS - 1]
    lines: list[Line] = []
    for layer in shown:
        where = place(layer.location)
        bias = layer.bias.value if not layer.leaf else f"`{layer.leaf}`, {layer.bias.value}"
        text = f"{layer.operation} at {where}: bias {bias}; lambda {layer.proxies}"
        lines.append(Line(text, "    ", "      "))
    if len(shown) < len(layers):
        lines.append(Line(f"and {len(layers) - len(shown)} more", "    "))
    return lines
