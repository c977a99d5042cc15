"""Steps whose gradients nobody has proved right are kept in files, to be judged again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clarke.errors import ClarkeError, InputError
from clarke.numerics import KEPT_BYTES
from clarke.proof import save_step

if TYPE_CHECKING:
    from os import PathLike

    import torch

    from clarke.audit.judge import Case
    from clarke.decide import Decision


class Keeper:
    """A folder with the steps of one audit, up to a size.

    Attributes:
        folder: Where they are.
        left_out: Why steps were not kept, in words, with the number of the last such step.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        self.left_out: dict[str, int] = {}
        self._bytes = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"Cannot make the folder {self.folder}: {error.strerror}. Name another for `keep`."
            ) from error

    def keep(
        self, number: int, case: Case, gradient: tuple[torch.Tensor, ...], decision: Decision
    ) -> Path | None:
        """Keep a step that is not proved right, if there is room; returns its file."""
        if decision.verdict.correct:
            return None
        try:
            if case.opened is not None:
                raise InputError("it detaches values that are computed from parameters")
            if self._bytes >= KEPT_BYTES:
                raise InputError(f"{self.folder} holds {KEPT_BYTES:.0f} bytes of steps already")
            path = self.folder / f"step-{number:06d}.clarke"
            save_step(case.trace(), case.slots, gradient, path)
        except ClarkeError as error:
            self.left_out[str(error)] = number
            return None
        self._bytes += path.stat().st_size
        return path
