"""What differs between two versions' atlases, and whether the answers are valid on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from clarke.atlas.model import Standing, close, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clarke.atlas.model import Vector


class Mode(Enum):
    """The mode of autograd that answers."""

    BOTH = "both"
    REVERSE = "reverse"
    FORWARD = "forward"


class Effect(Enum):
    """What a change means for those who use the operation; what matters most comes first."""

    VALIDITY = "Validity changed"
    VALID = "Other answers, valid both"
    INVALID = "Other answers, valid neither"
    UNDECIDED = "Undecided on one side"
    MISSING = "Answered by one version only"


@dataclass(frozen=True)
class Answer:
    """What one version answers at a point.

    Attributes:
        vector: The gradient, all inputs laid out flat.
        standing: What it is worth.
    """

    vector: Vector
    standing: Standing

    def same(self, other: Answer) -> bool:
        """Whether value, up to rounding, and worth are the same."""
        return self.standing is other.standing and close(self.vector, other.vector)


@dataclass(frozen=True)
class Change:
    """One answer that differs.

    Attributes:
        call: The row's call.
        kink: The row's point.
        mode: Whose answer; `Mode.BOTH` where the modes agree in both versions.
        before: There; None where that version has no such row, or no such mode for it.
        after: Here.
    """

    call: str
    kink: str
    mode: Mode
    before: Answer | None
    after: Answer | None

    @property
    def effect(self) -> Effect:
        """What the change means."""
        if self.before is None or self.after is None:
            return Effect.MISSING
        before, after = self.before.standing, self.after.standing
        if Standing.UNDECIDED in (before, after):
            return Effect.UNDECIDED
        if _valid(before) is not _valid(after):
            return Effect.VALIDITY
        return Effect.VALID if _valid(after) else Effect.INVALID

    def to_dict(self) -> dict[str, Any]:
        """The change as plain data for JSON."""
        return {
            "call": self.call,
            "kink": self.kink,
            "mode": self.mode.value,
            "effect": self.effect.name,
            "before": _plain(self.before),
            "after": _plain(self.after),
        }


def differences(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[Change, ...]:
    """The differences between rows as `AtlasRow.to_dict` gives them.

    Sorted by what they mean, in the order of `Effect`; within that, in the order of `after`.

    Raises:
        KeyError, TypeError, ValueError: A row is not of that form.
    """
    old = {(r["call"], r["kink"]): r for r in before}
    new = {(r["call"], r["kink"]): r for r in after}
    found = [
        Change(*key, mode, there, here)
        for key in (*new, *(k for k in old if k not in new))
        for mode, there, here in _pairs(_answers(old.get(key)), _answers(new.get(key)))
        if not _same(there, here)
    ]
    order = list(Effect)
    return tuple(sorted(found, key=lambda change: order.index(change.effect)))


_Answers = tuple[Answer | None, Answer | None]


def _answers(row: Mapping[str, Any] | None) -> _Answers:
    """Reverse mode's answer and forward mode's."""
    if row is None:
        return None, None
    reverse = Answer(_vector(row["reverse"]), Standing[row["standing"]])
    if row["forward"] is None:
        return reverse, None
    return reverse, Answer(_vector(row["forward"]), Standing[row["forward_standing"]])


def _pairs(
    before: _Answers, after: _Answers
) -> Iterator[tuple[Mode, Answer | None, Answer | None]]:
    """The answers to compare: one pair where the modes agree on both sides, else one per mode."""
    if _same(*before) and _same(*after):
        yield Mode.BOTH, before[0], after[0]
    else:
        yield Mode.REVERSE, before[0], after[0]
        yield Mode.FORWARD, before[1], after[1]


def _same(left: Answer | None, right: Answer | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.same(right)


def _valid(standing: Standing) -> bool | None:
    """None where there is no set to be valid in."""
    if standing in (Standing.NOT_LIPSCHITZ, Standing.INFINITE_VALUE, Standing.UNDECIDED):
        return None
    return standing in (Standing.GRADIENT, Standing.LIMITING, Standing.CLARKE)


def _vector(values: Sequence[float | str]) -> Vector:
    return tuple(float(x) for x in values)


def _plain(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {"vector": plain(answer.vector), "standing": answer.standing.name}
