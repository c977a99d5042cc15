"""What the user names by ``module:name`` on the command line."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

import clarke
from clarke.errors import InputError, in_a_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NOT_SHOWN = tuple(str(Path(m.__file__).parent) for m in (torch, clarke) if m.__file__)


# What the commands that take a function are given.
Function = Annotated[str, typer.Argument(help="module:function", show_default=False)]
Shapes = Annotated[
    str, typer.Option("--inputs", help="Shapes, as 4x4,4x4; 1 is a vector, () a number.")
]
_FUNCTION = """
It names a function of tensors, with their shapes given by --inputs, as in

  clarke hunt mylosses:focal --inputs 8x10,8x10

or a function without arguments that returns the function and a tuple of example inputs.
"""
FILLS: Mapping[str, Callable[..., torch.Tensor]] = MappingProxyType(
    {"normal": torch.randn, "zeros": torch.zeros, "ones": torch.ones}
)


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


def function_and_inputs(
    target: str, shapes: str, fill: str = "normal"
) -> tuple[Any, tuple[Any, ...]]:
    """The function that the user names, and inputs for it.

    Args:
        target: ``module:function``.
        shapes: Of the inputs, as in ``4x4,4,()``; without, the function makes both.
        fill: What inputs of these shapes hold, one of `FILLS`.

    Raises:
        InputError: There is no such thing, or it does not give what it should.
    """
    made = load(target, _FUNCTION)
    if shapes:
        return made, tuple(_example(shapes, fill))
    try:
        pair = made()
    except Exception as error:
        raise InputError(f"{target} raised {in_a_line(error)}.{_FUNCTION}") from error
    if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[0])):
        raise InputError(
            f"{target} returned no function with example inputs, and --inputs is not given."
            f"{_FUNCTION}"
        )
    function, example = pair
    return function, tuple(example) if isinstance(example, (tuple, list)) else (example,)


def _example(shapes: str, fill: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = {"generator": generator} if fill == "normal" else {}
    found = []
    for text in shapes.split(","):
        if not re.fullmatch(r"\(\)|\d+(x\d+)*", text):
            raise InputError(
                f"--inputs takes shapes such as 4x4,4x4,(), not {shapes!r}. For inputs of other "
                "kinds leave it out, and name a function that returns the function and its inputs."
            )
        sizes = [] if text == "()" else [int(n) for n in text.split("x")]
        found.append(FILLS[fill](sizes, dtype=torch.float64, **drawn))
    return [x.requires_grad_() for x in found]
