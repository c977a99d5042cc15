"""A file without what tells of its author: names of files, modules, functions and parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clarke.proof.container import pack, put, read_bytes, unpack
from clarke.proof.files import unpack_stored

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import torch


@dataclass(frozen=True)
class Stripped:
    """What was taken out of a file, and what is left.

    Attributes:
        places: How many places lost their file, module, function and line.
        names: How many tensors lost their name.
        remains: What the file still tells, one sentence each.
    """

    places: int
    names: int
    remains: tuple[str, ...]


def strip(path: Path, target: Path) -> Stripped:
    """Write the same proof, or kept step, without names and paths.

    What is proved stays, and so do the numbers: the parameters and the data at the point.

    Args:
        path: A file of a proof or of a kept step.
        target: Where to; the same as `path` to write it over.

    Raises:
        InputError: A file cannot be read or written.
        ProofError: Something in it is out of place; nothing is written.
    """
    raw = read_bytes(path)
    unpack_stored(raw, str(path))  # refuses what is none
    content, tensors = unpack(raw)
    program = content["program"]
    named = [read for read in program["read"] if read["name"]]
    for read in named:
        read["name"] = ""
    # Places that were apart stay so: a program at one place is another program.
    places = [["", "", number, ""] for number in range(1, len(program["places"]) + 1)]
    program["places"] = places
    raw = pack(content, tensors)
    unpack_stored(raw, str(target))
    put(target, raw)
    return Stripped(len(places), len(named), tuple(_remains(content, tensors)))


def _remains(content: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> list[str]:
    program = content["program"]
    read = [t for name, t in tensors.items() if name.startswith(("slot.", "memory."))]
    largest = max(read, key=lambda t: t.numel(), default=None)
    shape = "" if largest is None else f", the largest of shape {tuple(largest.shape)}"
    versions = ", ".join(f"{k} {v}" for k, v in sorted(content["written_by"].items()))
    return [
        f"{len(program['ops'])} operations of torch with their arguments",
        f"the {sum(t.numel() for t in read):,} numbers that they read: parameters and data{shape}",
        "the gradient, and no proof: a step that is still to be judged"
        if content["claim"]["kind"] == "nothing"
        else f"the gradient, the verdict ({content['verdict']}) and what proves it",
        f"the versions: {versions}",
    ]
