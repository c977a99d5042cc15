"""The `clarke` command: one module for each subcommand, imported only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clarke.cli.status import Exit
from clarke.errors import ClarkeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Subcommand:
    """A subcommand: `clarke.cli.<name>` defines a function of that name, which typer runs.

    Attributes:
        name: What the user types, and the name of module and function.
        summary: One line for `clarke --help`.
        passes_on: Options after its first argument belong to somebody else (a script).
    """

    name: str
    summary: str
    passes_on: bool = False

    @property
    def module(self) -> str:
        """The module that defines it."""
        return f"clarke.cli.{self.name}"


SUBCOMMANDS = (
    Subcommand("examples", "Known right and wrong gradients, each judged here and now."),
    Subcommand("demo", "Train a small network under audit and show what it finds."),
    Subcommand("run", "Audit an unmodified training script.", passes_on=True),
    Subcommand("report", "Show the report of a run as a page of HTML."),
    Subcommand("verify", "Check proofs that were saved to files, by two programs."),
    Subcommand("judge", "Judge steps again that an audit kept."),
    Subcommand("strip", "Take names and paths out of such files, to send them."),
    Subcommand("explain", "Which theorem covers a model, and which layer blocks it."),
    Subcommand("check", "Judge a function's gradient at one point."),
    Subcommand("hunt", "Look for points at which a function's gradient is wrong."),
    Subcommand("reproduce", "Repeat the experiments of the paper."),
    Subcommand("validate", "Compare the paper's conditions with exact answers."),
    Subcommand("ops", "What PyTorch returns at the kinks of its operations, measured."),
)


def make_app(only: str | None = None) -> typer.Typer:
    """The command line.

    Args:
        only: Import this subcommand and no other; the rest are listed in the help, but do
            nothing. None imports them all, "" none.
    """
    app = typer.Typer(
        name="clarke",
        help="Is the gradient that PyTorch's autograd returned a Clarke subgradient?",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    for command in SUBCOMMANDS:
        if importlib.util.find_spec(command.module) is None:
            continue
        wanted = only is None or only == command.name
        function = _load(command) if wanted else _nothing
        # What follows the first word that is no option is the program's own.
        settings = {"allow_interspersed_args": False}
        app.command(
            command.name,
            short_help=command.summary,
            context_settings=settings if command.passes_on else None,
        )(function)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the status of `clarke.cli.status.Exit`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((a for a in given if not a.startswith("-")), "")
    try:
        make_app(chosen)(given, prog_name="clarke")
    except ClarkeError as error:
        typer.echo(f"clarke: {error}", err=True)
        sys.exit(Exit.USAGE)


def _load(command: Subcommand) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(command.module), command.name)
    return function


def _nothing() -> None:
    """Stands in the help for a subcommand that was not asked for."""


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        import importlib.metadata

        for name in ("clarke", "torch"):
            typer.echo(f"{name} {importlib.metadata.version(name)}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Versions of clarke and torch.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Is the gradient that PyTorch's autograd returned a Clarke subgradient?"""


__all__ = ["SUBCOMMANDS", "Subcommand", "main", "make_app"]
