"""Plain data out of a file, each piece of it held against the type that it has to have."""

from __future__ import annotations

from typing import Any

from clarke.proof.container import refuse

_MOST = 1_000_000  # operations, tensors, items of an argument


def fields(value: Any, keys: set[str], what: str) -> dict[str, Any]:
    """A JSON object with exactly these keys."""
    if not isinstance(value, dict) or set(value) != keys:
        raise refuse(f"{what} has not the fields {', '.join(sorted(keys))}")
    return value


def items(value: Any, what: str) -> list[Any]:
    """A JSON list that is not too long."""
    if not isinstance(value, list) or len(value) > _MOST:
        raise refuse(f"{what} is no list, or too long")
    return value


def whole(value: Any, what: str) -> int:
    """A JSON integer of 64 bits."""
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise refuse(f"{what} holds what is no whole number")
    return value


def number(value: Any, what: str) -> float:
    """A JSON number with a fraction."""
    if type(value) is not float:
        raise refuse(f"{what} holds what is no number")
    return value


def truth(value: Any) -> bool:
    """A JSON truth value."""
    if type(value) is not bool:
        raise refuse("a truth value is neither true nor false")
    return value


def text(value: Any) -> str:
    """A JSON string that can be shown: no line break or escape that would pass for our words."""
    if not isinstance(value, str) or not value.isprintable():
        raise refuse("a name is no text that can be shown")
    return value


def printable(value: str) -> str:
    """A text as a file holds it: what cannot be shown is a question mark."""
    return "".join(c if c.isprintable() else "?" for c in value)
