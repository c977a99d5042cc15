"""What the ladder returns: a verdict with its certificate and the kinks behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.decide.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.capture import Location, OpRecord
    from clarke.constraints import Relevance
    from clarke.decide.certificate import Certificate
    from clarke.kinks import Touch
    from clarke.steering import Analysis
    from clarke.verdict import Verdict


class Confirm(Enum):
    """Whether positive verdicts are confirmed by running the program nearby."""

    ALWAYS = "run the program along every witness"
    NEVER = "trust the rows"


@dataclass(frozen=True)
class Settings:
    """Limits of one decision; counts, so that runs repeat.

    Attributes:
        seed: Seed of the private random generator (the user's is never touched).
        dense_entries: Largest dense rows x variables array.
        selections: Selections tried when AD mixes pieces.
        rounds: Rounds of column generation for large row systems.
        confirm: Whether to run the program along the witness.
        quick: Whether audits may judge common cases from recorded values alone (clarke.fast).
        exact: Budget of the exact enumeration.
    """

    seed: int = 0
    dense_entries: int = 4_000_000
    selections: int = 32
    rounds: int = 24
    confirm: Confirm = Confirm.ALWAYS
    quick: bool = True
    exact: Limits = field(default=Limits(nodes=20_000, cells=2_000, kinks=128))


@dataclass(frozen=True, eq=False)
class Witness:
    """A direction along which one selection is active at every relevant kink.

    Attributes:
        direction: One tensor per variable.
        choices: The selection, by position of the operation.
        gradient: Its gradient G.
        rows: (m,) the derivatives along the direction of the switching functions that select the
            pieces, in the order of `clarke.constraints.build_rows`: all positive.
        kinks: (m,) the touched kink to which each row belongs.
    """

    direction: tuple[torch.Tensor, ...]
    choices: Mapping[int, torch.Tensor]
    gradient: tuple[torch.Tensor, ...]
    rows: NDArray[np.float64]
    kinks: NDArray[np.int64]


@dataclass(frozen=True)
class Culprit:
    """An operation that a verdict names, with the reason."""

    operation: str
    location: Location
    reason: str

    def to_dict(self) -> dict[str, str | int]:
        """The culprit as plain data for JSON."""
        return {
            "operation": self.operation,
            "module": self.location.module,
            "file": self.location.file,
            "line": self.location.line,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        return f"{self.operation} at {self.location}: {self.reason}"


@dataclass(frozen=True, eq=False)
class TouchCount:
    """The kinks of one operation, counted without listing them.

    Attributes:
        op: The operation.
        elements: Output elements.
        touched: Elements at which several pieces meet.
        relevant: Those of them that may matter.
        touch: The touched kinks themselves, where they were listed.
        nonzero: For a maxpool after a ReLU: ties of a value other than zero.
        choice: What AD chose there, in words, where the touched kinks were not listed.
    """

    op: OpRecord
    elements: int
    touched: int
    relevant: int
    touch: Touch | None = None
    nonzero: int | None = None
    choice: str = ""


@dataclass(frozen=True, eq=False)
class Decision:
    """The outcome of the ladder.

    Attributes:
        verdict: The verdict.
        reason: One or two sentences of explanation; for UNDECIDED, what is missing.
        certificate: For positive and negative verdicts, what `verify` re-checks.
        theorem: The argument, e.g. "witness".
        culprits: The operations named.
        analysis: The trace and all touched kinks.
        relevance: Which of them matter, if that was found out.
        notes: Further sentences for the user.
        cures: What to write instead, as a line of code where one is known.
        element: A finite or a correct gradient, where AD's is not one.
        counts: Touched kinks by operation, where there is no analysis.
        out_of_time: Undecided because the time limit ended.
        rounded: (count,) bool, kinks that matter and are tied by rounding alone; None where they
            were not told apart.
    """

    verdict: Verdict
    reason: str
    certificate: Certificate | None = None
    theorem: str = ""
    culprits: tuple[Culprit, ...] = ()
    analysis: Analysis | None = None
    relevance: Relevance | None = None
    notes: tuple[str, ...] = field(default=())
    cures: tuple[str, ...] = field(default=())
    element: tuple[torch.Tensor, ...] | None = None
    counts: tuple[TouchCount, ...] = field(default=())
    out_of_time: bool = False
    rounded: torch.Tensor | None = None


def culprit_of(touch: Touch, reason: str) -> Culprit:
    """Name the operation of a touch."""
    return Culprit(touch.op.shown, touch.op.location, reason)


def ray_witness(direction: tuple[torch.Tensor, ...], gradient: tuple[torch.Tensor, ...]) -> Witness:
    """A witness without rows: gradients along a ray tend to `gradient`."""
    return Witness(
        direction=direction,
        choices={},
        gradient=gradient,
        rows=np.zeros(0),
        kinks=np.zeros(0, dtype=np.int64),
    )


def weighted_sum(
    gradients: Sequence[Sequence[torch.Tensor]], weights: Sequence[float]
) -> tuple[torch.Tensor, ...]:
    """The weighted sum of gradients, tensor by tensor."""
    return tuple(
        sum((w * part for w, part in zip(weights, parts, strict=True)), torch.zeros_like(parts[0]))
        for parts in zip(*gradients, strict=True)
    )
