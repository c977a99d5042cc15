"""`clarke strip`: a file of a proof or of a kept step without names and paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clarke.cli.plain import say
from clarke.layout import Line
from clarke.proof.strip import strip as strip_file


def strip(
    files: Annotated[
        list[Path], typer.Argument(help="Files of proofs, or of steps that were kept.")
    ],
) -> None:
    """Write each file once more, as FILE.stripped.clarke, without names of files and parameters.

    The proof holds as before; what the file still tells is listed.
    """
    for path in files:
        target = path.with_name(f"{path.name.removesuffix('.clarke')}.stripped.clarke")
        found = strip_file(path, target)
        told = f"places: {found.places}, names of tensors: {found.names}"
        say(f"{target}: taken out: {told}. It still tells:")
        for line in found.remains:
            say(Line(line, "  ", "    "))
