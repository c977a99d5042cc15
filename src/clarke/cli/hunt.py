"""`clarke hunt module:function`: look for points at which a function's gradient is wrong."""

from __future__ import annotations

from typing import Annotated

import typer

import clarke
from clarke.cli.plain import json_text, say
from clarke.cli.target import Function, Shapes, function_and_inputs
from clarke.errors import ClarkeError, InputError, in_a_line


def hunt(
    target: Function,
    *,
    inputs: Shapes = "",
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
    function, example = function_and_inputs(target, inputs)
    try:
        found = clarke.hunt(function, example, seconds=seconds, seed=seed, corpus=corpus or None)
    except ClarkeError:
        raise
    except Exception as error:
        raise InputError(
            f"The function cannot be run on the example: {in_a_line(error)}. "
            "Do the inputs have the shapes that it takes?"
        ) from error
    if as_json:
        typer.echo(json_text(found.to_dict()))
    else:
        say(*found.lines())
    for find in found.finds if script and not as_json else ():
        typer.echo(f"\n{find.script}", nl=False)
    if found:
        raise typer.Exit(1)
