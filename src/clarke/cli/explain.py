"""`clarke explain module:factory`: which theorem covers a model, and which layer blocks it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import torch
import typer

import clarke
from clarke.cli.plain import say
from clarke.cli.status import Exit
from clarke.cli.target import load, told
from clarke.errors import ClarkeError, InputError
from clarke.layout import Line

_EXAMPLE = """
The factory takes no arguments and returns the model together with an example input: a tensor, a
tuple of arguments or a dict of keyword arguments. It may also return the model alone, with
--shape to say what it takes, as in

  clarke explain clarke.experiments.models:resnet18 --shape 2,3,32,32
"""


def explain(
    target: Annotated[str, typer.Argument(help="module:factory", show_default=False)],
    *,
    shape: Annotated[
        str, typer.Option("--shape", help="Shape of the example, as 2,3,32,32 (random values).")
    ] = "",
    evaluate: Annotated[
        bool, typer.Option("--eval", help="Look at the model in evaluation mode.")
    ] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Also print every hypothesis and every layer.")
    ] = False,
    structure: Annotated[
        bool,
        typer.Option(
            "--structure", help="Also print what it follows from: kinks, and what reaches them."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 2 unless AD is correct for all parameters."),
    ] = False,
) -> None:
    """Say which theorem holds for a model, for all inputs and parameters, or what blocks it."""
    model, example = _load(target, shape)
    if evaluate and isinstance(model, torch.nn.Module):
        model.eval()
    if not callable(model):
        raise InputError(
            f"{target} returned {type(model).__name__}, not a model that can be called.{_EXAMPLE}"
        )
    try:
        found = clarke.explain(model, example)
    except ClarkeError:
        raise
    except Exception as error:
        raise InputError(
            f"The model cannot be run on the example: {told(error)}. "
            "Does the example have the shape that it takes?"
        ) from error
    if as_json:
        more = {"structure": found.structure.to_dict()} if structure else {}
        typer.echo(json.dumps({**found.to_dict(), **more}, indent=2))
    else:
        parts = [found.detail_lines()] if details else []
        parts += [found.structure.lines()] if structure else []
        say(*found.lines(), *(line for part in parts for line in (Line(""), *part)))
    if strict and not found.always_correct:
        raise typer.Exit(Exit.UNDECIDED)


def _load(target: str, shape: str) -> tuple[Any, Any]:
    found = load(target, _EXAMPLE)
    try:
        made = found if isinstance(found, torch.nn.Module) else found()
    except Exception as error:
        raise InputError(f"{target} raised {told(error)}.{_EXAMPLE}") from error
    if shape:
        if not re.fullmatch(r"\d+(,\d+)*", shape):
            raise InputError(f"--shape takes numbers separated by commas, not {shape!r}.")
        model = made[0] if isinstance(made, tuple) else made
        sizes = [int(s) for s in shape.split(",")]
        return model, torch.randn(sizes, generator=torch.Generator().manual_seed(0))
    if not (isinstance(made, tuple) and len(made) == 2):
        raise InputError(f"{target} returned no example input, and --shape is not given.{_EXAMPLE}")
    return made
