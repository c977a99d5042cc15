"""`clarke validate`: the paper's sufficient conditions against exact answers."""

from __future__ import annotations

import itertools
import os
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from clarke import layout
from clarke.cli.plain import say, show_table
from clarke.cli.status import Exit
from clarke.experiments.random_networks import NetworkClass, Variables
from clarke.experiments.validate import (
    Answer,
    Case,
    Line,
    Method,
    contradictions,
    summarize,
)
from clarke.experiments.validate import validate as judge_all

if TYPE_CHECKING:
    from collections.abc import Sequence

_TITLES = ("networks", "judged", "several", *(m.value for m in Method))
_INTRODUCTION = (
    "The paper proves its conditions sufficient. Here they are compared with the set itself, on "
    "random small networks at points on kinks, whose Clarke subdifferential `clarke` computes by "
    "enumerating every feasible selection. Algorithm 1 is written as the paper states it "
    "(`clarke/experiments/theorem8.py`) and shares only the solver of linear systems with the "
    "rest. Gradients at random nearby points check the sets independently of both."
)
_NOTE = (
    "Judged: networks of the class times choices of variables, all at points on kinks. Several: "
    "those with more than one limiting gradient. The other columns: how often the method says "
    "yes / no / undecided; Theorem 8 does not apply unless every layer has its own parameters and "
    "all of them are differentiated, and its no means only that it does not prove anything."
)


def validate(
    *,
    networks: Annotated[int, typer.Option(min=1, help="Random networks of every class.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Decides all networks.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; by default one per core.", show_default=False),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a page of Markdown.")] = False,
) -> None:
    """Judge random small networks by Theorem 8, by witnesses and exactly, and compare.

    Every network stands on kinks: small dyadic weights, zero biases, repeated rows and samples.
    Where Theorem 8 or a witness says yes, the exact set must agree; gradients at nearby points
    must lie in the exact set. Exits with 1 if anything contradicts.
    """
    cases = _run(networks, seed, jobs or os.cpu_count() or 1)
    if markdown:
        typer.echo(page(cases, networks, seed), nl=False)
    else:
        _print(cases)
    if any(contradictions(cases).values()):
        raise typer.Exit(Exit.WRONG)


def _run(networks: int, seed: int, jobs: int) -> tuple[Case, ...]:
    console = Console(stderr=True)
    columns = (
        TextColumn("judging networks"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        total = networks * len(NetworkClass)
        parts = progress.track(judge_all(networks, seed, jobs), total=total)
        return tuple(itertools.chain.from_iterable(parts))


def lines(cases: Sequence[Case]) -> tuple[Line, ...]:
    """The lines of the table: classes of networks, choices of variables, all."""
    found = [
        summarize((c for c in cases if c.kind is kind and c.variables is which), f"{kind.value}")
        for which in Variables
        for kind in NetworkClass
    ]
    return (*found, summarize(cases, "all"))


def _cells(line: Line) -> tuple[str, ...]:
    def said(method: Method) -> str:
        if line.counts.get((method, Answer.OUTSIDE), 0) == line.cases:
            return "-"
        answers = (Answer.YES, Answer.NO, Answer.UNDECIDED)
        shown = answers[:2] if method is Method.THEOREM_8 else answers
        return " / ".join(str(line.counts.get((method, a), 0)) for a in shown)

    return (line.title, str(line.cases), str(line.several), *(said(m) for m in Method))


def _print(cases: Sequence[Case]) -> None:
    rows: list[tuple[str, ...]] = []
    for i, line in enumerate(lines(cases)):
        which = i // len(NetworkClass)
        if i % len(NetworkClass) == 0 and which < len(Variables):
            heading = f"variables: {list(Variables)[which].value}"
            rows.append((heading, *("" for _ in _TITLES[1:])))
        rows.append(_cells(line))
    show_table(_TITLES, rows)
    say("", layout.Line(_NOTE), "", "Contradictions:")
    for kind, count in contradictions(cases).items():
        say(layout.Line(kind.value, f"  {count}  ", "     "))


def page(cases: Sequence[Case], networks: int, seed: int) -> str:
    """The table as a page of Markdown."""
    text = [
        "# Sufficient conditions against exact answers",
        "",
        "Printed, with this sentence, by",
        "",
        "```sh",
        f"clarke validate --networks {networks} --seed {seed} --markdown",
        "```",
        "",
        *textwrap.wrap(_INTRODUCTION, 98),
        "",
        *textwrap.wrap(_NOTE, 98),
    ]
    every = lines(cases)
    for i, which in enumerate(Variables):
        own = every[i * len(NetworkClass) : (i + 1) * len(NetworkClass)]
        text += ["", f"## Differentiated: {which.value}", "", *_markdown(own)]
    text += ["", "## All together", "", *_markdown(every[-1:])]
    text += ["", "## Contradictions", "", "| what | found |", "|---|---|"]
    text += [f"| {kind.value} | {n} |" for kind, n in contradictions(cases).items()]
    return "\n".join(text) + "\n"


def _markdown(own: Sequence[Line]) -> list[str]:
    head = [f"| {' | '.join(_TITLES)} |", f"|{'---|' * len(_TITLES)}"]
    return head + [f"| {' | '.join(_cells(line))} |" for line in own]
