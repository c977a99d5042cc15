"""`clarke verify`: check proofs that were saved to files, by two programs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from clarke.cli.apart import apart
from clarke.cli.plain import state
from clarke.cli.status import Exit
from clarke.errors import ClarkeError, OutOfTimeError, ProofError
from clarke.layout import Line
from clarke.numerics import CHECK_SECONDS
from clarke.proof import load


def verify(
    files: Annotated[list[Path], typer.Argument(help="Files that were saved by report.save.")],
    *,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Time limit of clarke's own check; 0 for none.")
    ] = float(CHECK_SECONDS),
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 unless both programs have checked it.")
    ] = False,
) -> None:
    """Check proofs in files, by clarke and by clarke_verify.py, which shares no code with it.

    Exits with 0 when they hold, with 1 when one is rejected, and with 2 when that cannot be told.
    """
    worst = max((_verify(f, seconds or None, strict=strict) for f in files), key=_rank)
    raise typer.Exit(worst)


def _rank(status: int) -> int:
    """How bad a status is: a proof that is rejected is worse than one that cannot be checked."""
    return (int(Exit.CORRECT), int(Exit.UNDECIDED), int(Exit.WRONG)).index(status)


def _verify(path: Path, seconds: float | None, *, strict: bool) -> int:
    try:
        answer: tuple[int, str] = apart(lambda: _by_clarke(path, seconds), seconds)
        own, words = answer
    except (ProofError, OutOfTimeError) as error:
        own, words = _told_of(error)
    state(f"{path}: clarke: {words}")
    if own == Exit.WRONG:
        return own
    checker = importlib.import_module("clarke_verify")
    try:
        checked, assumed = checker.verify(path)
    except checker.Rejected as error:
        state(f"{path}: clarke_verify.py: rejected: {error}")
        return int(Exit.WRONG)
    except (checker.CannotTell, OSError) as error:
        state(f"{path}: clarke_verify.py: cannot tell: {error}")
        return max(own, int(Exit.UNDECIDED)) if strict else own
    state(f"{path}: clarke_verify.py: checked")
    for line in checked:
        state(Line(line, "  checked   ", " " * 12))
    for line in assumed:
        state(Line(line, "  assumed   ", " " * 12))
    return own


def _told_of(error: ClarkeError) -> tuple[int, str]:
    """What an error says of a file."""
    if isinstance(error, ProofError):
        return int(Exit.WRONG), f"rejected: {error}"
    more = " Give it more --seconds." if isinstance(error, OutOfTimeError) else ""
    return int(Exit.UNDECIDED), f"cannot tell: {error}{more}"


def _by_clarke(path: Path, seconds: float | None) -> tuple[int, str]:
    try:
        stored = load(path)
        defects = stored.defects(seconds=seconds)
    except ClarkeError as error:
        return _told_of(error)
    if defects:
        return int(Exit.WRONG), f"rejected: {'; '.join(defects)}"
    if stored.is_theorem:
        said = stored.claim["says"]["theorem"]
        return int(
            Exit.CORRECT
        ), f"checked: {'no theorem holds' if said is None else stored.theorem}"
    told = f" ({stored.theorem})" if stored.theorem else ""
    return int(Exit.CORRECT), f"checked: {stored.verdict.name}{told}"
