"""One row of the atlas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from clarke.verdict import Verdict

Vector = tuple[float, ...]


class Standing(Enum):
    """What autograd's answer at a point is worth."""

    GRADIENT = "the gradient"
    LIMITING = "a limiting gradient"
    CLARKE = "a Clarke element"
    WRONG = "not valid"
    FORMULA = "not valid: differs from difference quotients at a differentiable point"
    NONFINITE = "NaN or infinite, although a finite element exists"
    INFINITE_VALUE = "the value itself is not finite"
    NOT_LIPSCHITZ = "not Lipschitz: there is no Clarke subdifferential"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class AtlasRow:
    """One call at one point, measured on the installed torch.

    Attributes:
        call: What the user writes; several results are added up with weights 1, -0.9, 0.8, ...
        kink: The point, in words.
        operations: The operators whose kinks are touched there, without repeats.
        reverse: What reverse mode returns, all inputs laid out flat.
        forward: What forward mode returns; None where the operation has none.
        limits: Limits of reverse-mode gradients along rays to the point: sampled elements of the
            Bouligand subdifferential. For one input the first is the left slope and the last the
            right one. Empty where they do not settle.
        quotients: (lowest, highest) difference between one-sided difference quotients and the
            range that the limits allow; (0, 0) if they agree, None where there are no limits.
        verdict: What `clarke.check` says.
        standing: What reverse mode's answer is worth.
        forward_standing: What forward mode's is worth; None where there is none.
        element: A valid gradient where the answer is none, if one is known.
        reason: The verdict in words.
    """

    call: str
    kink: str
    operations: tuple[str, ...]
    reverse: Vector
    forward: Vector | None
    limits: tuple[Vector, ...]
    quotients: tuple[float, float] | None
    verdict: Verdict
    standing: Standing
    forward_standing: Standing | None
    element: Vector | None
    reason: str

    @property
    def modes_agree(self) -> bool | None:
        """Whether forward and reverse mode return the same; None where there is no forward mode."""
        return None if self.forward is None else close(self.forward, self.reverse)

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the row in other versions."""
        return self.call, self.kink

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data for JSON; numbers that JSON lacks become text."""
        return {
            "call": self.call,
            "kink": self.kink,
            "operations": list(self.operations),
            "reverse": plain(self.reverse),
            "forward": None if self.forward is None else plain(self.forward),
            "limits": [plain(v) for v in self.limits],
            "standing": self.standing.name,
            "forward_standing": None
            if self.forward_standing is None
            else self.forward_standing.name,
            "verdict": self.verdict.name,
            "element": None if self.element is None else plain(self.element),
            "reason": self.reason,
        }


def close(left: Vector, right: Vector, tolerance: float = 1e-6) -> bool:
    """Whether two vectors agree up to rounding; NaN agrees with NaN."""
    if len(left) != len(right):
        return False
    size = max((abs(x) for x in (*left, *right) if math.isfinite(x)), default=0.0)
    return all(
        a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= tolerance * max(size, 1.0)
        for a, b in zip(left, right, strict=True)
    )


def plain(vector: Vector) -> list[float | str]:
    """A vector for JSON; numbers that JSON lacks become text."""
    return [x if math.isfinite(x) else str(x) for x in (round(v, 12) for v in vector)]
