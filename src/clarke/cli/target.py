"""What the user names by ``module:name`` on the command line."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

import clarke
from clarke.errors import InputError, in_a_line

_NOT_SHOWN = tuple(str(Path(m.__file__).parent) for m in (torch, clarke) if m.__file__)


def load(target: str, example: str) -> Any:
    """Import it.

    Args:
        target: ``module:name``, with dots in the name for attributes.
        example: What to add to messages about how it has to look.

    Raises:
        InputError: There is no such thing, or its module raises.
    """
    name, colon, attribute = target.partition(":")
    if not colon or not name or not attribute:
        raise InputError(f"{target!r} is not of the form module:factory.{example}")
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        if not isinstance(error, (ImportError, AttributeError)):
            raise InputError(f"{target!r} cannot be imported: {told(error)}.") from error
        raise InputError(f"{target!r} cannot be imported: {error}.{example}") from error
    return found


def told(error: Exception) -> str:
    """An exception in a line, with the line of code that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_NOT_SHOWN)] or frames
    return f"{in_a_line(error).rstrip('.')} ({own[-1].filename}:{own[-1].lineno})"
