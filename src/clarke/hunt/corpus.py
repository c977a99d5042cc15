"""A folder in which finds are kept, to be tried first next time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clarke.hunt.subject import Point


class Corpus:
    """Points of earlier finds of one function; nothing where there is no folder.

    Args:
        folder: Where they are kept, one file each in a subfolder named like the function.
        function: The function.
    """

    def __init__(self, folder: str | Path | None, function: Callable[..., Any]) -> None:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        whole = f"{getattr(function, '__module__', '')}.{name}"
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in whole)
        self._folder = None if folder is None else Path(folder) / safe

    def points(self) -> Iterator[Point]:
        """What is kept; a file that cannot be read is passed over."""
        if self._folder is None:
            return
        for path in sorted(self._folder.glob("*.pt")):
            try:
                found = torch.load(path, weights_only=True)
            except Exception:  # noqa: BLE001, S112 - of whatever kind: it is no point
                continue
            if isinstance(found, list) and all(isinstance(x, torch.Tensor) for x in found):
                yield tuple(found)

    def keep(self, point: Point) -> None:
        """Keep a point, under a name that follows from its values."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        text = repr([(str(x.dtype), x.tolist()) for x in point])
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        torch.save([x.detach().clone() for x in point], self._folder / f"{name}.pt")
