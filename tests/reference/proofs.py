"""Files of proofs as a forger writes them: any content, its form and its digest right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import clarke_verify
from clarke.constraints import resolve
from clarke.errors import OutOfTimeError, ProofError, UnsupportedError
from clarke.prepare import prepared
from clarke.proof import load, save_step
from clarke.proof.claims import touched
from clarke.proof.container import pack, unpack
from clarke.proof.instructions import instructions
from clarke.steering import Program, analyse

CHECKER = Path(clarke_verify.__file__)
CHECKED, REJECTED, CANNOT_TELL = 0, 1, 2


def opened(path: Path) -> tuple[Any, dict[str, Any]]:
    """The content and the tensors of a file, to be changed."""
    return unpack(Path(path).read_bytes())


def forged(path: Path, content: Any, tensors: dict[str, Any]) -> Path:
    """A file with this content, its digest right."""
    path.write_bytes(pack(content, tensors))
    return path


def recorded(path: Path, function: Callable[..., Any], x: torch.Tensor) -> Path:
    """A file with a program at a point, and nothing proved."""
    with prepared(function, (x,), None) as run:
        save_step(run.trace, run.slots, run.gradient, path)
        analysis = resolve(analyse(run.trace, run.registry), run.registry, run.slots)
        program = Program(analysis, run.slots)
        words, lowered = instructions(program)
        content, tensors = opened(path)
        content["instructions"] = words
        return forged(path, content, {**tensors, **lowered, "touched": touched(program)})


def independent(path: Path) -> tuple[int, str]:
    """What clarke_verify.py says of a file, and why; other exceptions than its own are errors."""
    try:
        checked, _ = clarke_verify.verify(str(path))
    except clarke_verify.Rejected as error:
        return REJECTED, str(error)
    except clarke_verify.CannotTell as error:
        return CANNOT_TELL, str(error)
    return CHECKED, checked[0]


def own(path: Path, seconds: float = 60) -> tuple[int, str]:
    """What clarke itself says of a file, and why."""
    try:
        defects = load(path).defects(seconds=seconds)
    except ProofError as error:
        return REJECTED, str(error)
    except (OutOfTimeError, UnsupportedError) as error:
        return CANNOT_TELL, str(error)
    return (REJECTED, "; ".join(defects)) if defects else (CHECKED, "")


def alone(*paths: Path) -> subprocess.CompletedProcess[str]:
    """clarke_verify.py as a program, in an interpreter that sees no other package."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(CHECKER), *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
