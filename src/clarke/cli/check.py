"""`clarke check module:function`: judge a function's gradient at one point."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

import clarke
from clarke.cli.plain import json_text, say
from clarke.cli.status import exit_status
from clarke.cli.target import Function, Shapes, function_and_inputs
from clarke.errors import ClarkeError, InputError, in_a_line
from clarke.numerics import CHECK_SECONDS
from clarke.report.text import report_lines


class Fill(str, enum.Enum):
    """What inputs hold of which the shape alone is given."""

    NORMAL = "normal"
    ZEROS = "zeros"
    ONES = "ones"


def check(
    target: Function,
    *,
    inputs: Shapes = "",
    at: Annotated[
        Fill, typer.Option("--at", help="What inputs of these shapes hold.")
    ] = Fill.NORMAL,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="Time limit; 0 for none.")
    ] = float(CHECK_SECONDS),
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 if the gradient stays undecided.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge the gradient of a function at a point; exit with 1 if it is wrong, 3 if not finite."""
    function, example = function_and_inputs(target, inputs, at.value)
    try:
        report = clarke.check(function, example, seconds=seconds or None)
    except ClarkeError:
        raise
    except Exception as error:
        raise InputError(
            f"The function cannot be run on the inputs: {in_a_line(error)}. "
            "Do they have the shapes that it takes?"
        ) from error
    if as_json:
        typer.echo(json_text(report.to_dict()))
    else:
        say(*report_lines(report))
    infinite = report.verdict is clarke.Verdict.NONFINITE
    raise typer.Exit(exit_status([report.correct], strict=strict, nonfinite=infinite))
