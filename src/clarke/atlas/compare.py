"""What differs between two versions' atlases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COMPARED = ("reverse", "forward", "standing")


@dataclass(frozen=True)
class Change:
    """One difference: a row that only one side has, or a value that differs.

    Attributes:
        call: The row's call.
        kink: The row's point.
        what: ``reverse``, ``forward``, ``standing``, or ``row``.
        before: There.
        after: Here.
    """

    call: str
    kink: str
    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.call} at {self.kink}: {self.what} {self.before} -> {self.after}"


def differences(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[Change, ...]:
    """The differences between rows as `AtlasRow.to_dict` gives them, in the order of `after`."""
    old = {(r["call"], r["kink"]): r for r in before}
    new = {(r["call"], r["kink"]): r for r in after}
    found = []
    for key, row in new.items():
        other = old.get(key)
        if other is None:
            found.append(Change(*key, "row", None, row["standing"]))
            continue
        found += [
            Change(*key, what, other[what], row[what])
            for what in _COMPARED
            if not _same(other[what], row[what])
        ]
    found += [Change(*key, "row", r["standing"], None) for key, r in old.items() if key not in new]
    return tuple(found)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            _same(a, b) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= 1e-6 * max(1.0, abs(left), abs(right))
    return bool(left == right)
