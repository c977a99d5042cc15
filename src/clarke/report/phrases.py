"""Phrases that every report uses: several of one operation, what is likely behind UNDECIDED."""

from __future__ import annotations

from typing import Final

from clarke.verdict import Verdict

# Words of a reason, and the cause that they speak of.
_CAUSES: Final = (
    (
        ("time ran out",),
        (
            "It needs more time: give more (clarke run --seconds 60), or keep such steps and judge "
            "them afterwards (clarke run --keep, then clarke judge)."
        ),
    ),
    (
        ("no direction was found", "neither proved nor excluded", "kinks can change"),
        (
            "Many kinks meet at one point, as with weights that are all zero or inputs that "
            "repeat: try fewer samples at once, or a point beside it."
        ),
    ),
    (
        ("not confirm it", "give other values"),
        (
            "The function computes where autograd does not look (NumPy, .item(), .data, inference "
            "mode), or not the same twice: compute it with tensors, and seed what it draws."
        ),
    ),
    (
        ("no rule", "unknown operation", "does not know", "register_kink", "register_function"),
        (
            "An operation is used that clarke does not know: declare it with clarke.register_kink "
            "or clarke.register_function, or write it with others."
        ),
    ),
)


def likely(verdict: Verdict | None, reason: str) -> tuple[str, ...]:
    """Causes that fit the reason, with what to do; none where the verdict is another."""
    if verdict is not Verdict.UNDECIDED:
        return ()
    text = reason.lower()
    return tuple(cause for words, cause in _CAUSES if any(w in text for w in words))


def several(operation: str, count: int) -> str:
    """An operation's name, as many times as it occurs."""
    if count == 1:
        return operation
    plural = f"{operation}{'es' if operation.endswith(('s', 'x')) else 's'}"
    return f"both {plural}" if count == 2 else f"{count} {plural}"
