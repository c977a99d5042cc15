"""Exit statuses, the same for every subcommand that judges gradients."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Exit(IntEnum):
    """What the shell gets."""

    CORRECT = 0
    WRONG = 1
    USAGE = 2
    UNDECIDED = 2  # the same number on purpose; only asked for by --strict
    NONFINITE = 3


def exit_status(
    verdicts: Iterable[bool | None], *, strict: bool = False, nonfinite: bool = False
) -> Exit:
    """WRONG if any gradient is proved wrong, else NONFINITE if one is not finite.

    Under `strict` UNDECIDED if any is not proved right.

    Args:
        verdicts: `Verdict.correct` of every gradient that was judged.
        strict: Whether a gradient without a proof either way counts.
        nonfinite: Whether there was NaN or infinity.
    """
    found = list(verdicts)
    if False in found:
        return Exit.WRONG
    if nonfinite:
        return Exit.NONFINITE
    if strict and None in found:
        return Exit.UNDECIDED
    return Exit.CORRECT
