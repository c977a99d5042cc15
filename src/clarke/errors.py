"""One hierarchy of exceptions; every message says what happened, where, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ClarkeError(Exception):
    """Base of every exception that clarke raises on purpose."""


class InputError(ClarkeError, ValueError):
    """The call cannot be answered: no gradient, not a scalar, complex numbers, a freed graph."""


class ProofError(ClarkeError, ValueError):
    """A file is not a proof: cut off, changed or made by hand; says what is out of place."""


class CaptureError(ClarkeError, RuntimeError):
    """The program ran in a way that cannot be watched: inference mode, compiled modules."""


class UnseenError(CaptureError):
    """A tensor was computed where nobody recorded."""


class RegistrationError(ClarkeError, ValueError):
    """A rule was registered twice, or for something that is not an operator overload."""


class ReplayError(ClarkeError, RuntimeError):
    """A recorded operation cannot be run again; names the operation and its line."""


class ModifiedSinceError(ReplayError):
    """A tensor that the program read was changed in place after it ran."""


class WrongGradientError(ClarkeError, AssertionError):
    """The gradient is proved not to be a Clarke gradient; `report` holds the proof."""

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


class UnsupportedError(ClarkeError, NotImplementedError):
    """The program contains what selections of pieces do not describe; names it and its line."""


class BudgetError(ClarkeError, RuntimeError):
    """An exact answer would need more work than the budget allows."""

    def __init__(self, message: str, spent: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.spent = dict(spent or {})


class OutOfTimeError(BudgetError):
    """The time limit of a call ended before an answer; says what was under way."""


class OutOfMemoryError(BudgetError):
    """Clarke's own analysis needed more memory than there is."""


class WrongGradientWarning(UserWarning):
    """An audited backward call returned a gradient that is proved not to be a Clarke gradient."""


class AuditWarning(UserWarning):
    """An audit could not judge a gradient because clarke itself failed; the training goes on."""


_SHOWN = 300  # characters of an exception's text


def in_a_line(error: Exception) -> str:
    """The kind of an exception and the first line of its text; torch's go on for pages."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:_SHOWN]}"
