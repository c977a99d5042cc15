"""`clarke hunt module:function`: look for points at which a function's gradient is wrong."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import torch
import typer

import clarke
from clarke.cli.target import load
from clarke.errors import ClarkeError, InputError, in_a_line

_EXAMPLE = """
It names a function of tensors, with their shapes given by --inputs, as in

  clarke hunt mylosses:focal --inputs 8x10,8x10

or a function without arguments that returns the function to hunt and a tuple of example inputs.
"""


def hunt(
    target: Annotated[str, typer.Argument(help="module:function", show_default=False)],
    *,
    inputs: Annotated[
        str,
        typer.Option("--inputs", help="Shapes, as 4x4,4x4; 1 is a vector, () a number."),
    ] = "",
    seconds: Annotated[float, typer.Option("--seconds", help="Time limit.")] = 20.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the search.")] = 0,
    corpus: Annotated[
        str, typer.Option("--corpus", help="Folder of finds, tried first next time.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    script: Annotated[
        bool, typer.Option("--script", help="Print a program for each find, too.")
    ] = False,
) -> None:
    """Look for points at which a function's gradient is wrong; exit with 1 where one is found."""
    function, example = _loaded(target, inputs)
    try:
        found = clarke.hunt(function, example, seconds=seconds, seed=seed, corpus=corpus or None)
    except ClarkeError:
        raise
    except Exception as error:
        raise InputError(
            f"The function cannot be run on the example: {in_a_line(error)}. "
            "Do the inputs have the shapes that it takes?"
        ) from error
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
    for find in found.finds if script and not as_json else ():
        typer.echo(f"\n{find.script}", nl=False)
    if found:
        raise typer.Exit(1)


def _loaded(target: str, shapes: str) -> tuple[Any, tuple[Any, ...]]:
    made = load(target, _EXAMPLE)
    if shapes:
        return made, tuple(_example(shapes))
    try:
        pair = made()
    except Exception as error:
        raise InputError(f"{target} raised {in_a_line(error)}.{_EXAMPLE}") from error
    if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[0])):
        raise InputError(
            f"{target} returned no function with example inputs, and --inputs is not given."
            f"{_EXAMPLE}"
        )
    function, example = pair
    return function, tuple(example) if isinstance(example, (tuple, list)) else (example,)


def _example(shapes: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for text in shapes.split(","):
        if not re.fullmatch(r"\(\)|\d+(x\d+)*", text):
            raise InputError(f"--inputs takes shapes such as 4x4,4x4,(), not {shapes!r}.")
        sizes = [] if text == "()" else [int(n) for n in text.split("x")]
        found.append(torch.randn(sizes, generator=generator, dtype=torch.float64))
    return [x.requires_grad_() for x in found]
