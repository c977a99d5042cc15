"""Compile while the training goes on."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


class Compiling:
    """Runs a compilation on a thread of its own, and says so once in the log ``clarke``.

    Args:
        compile_all: Returns what it compiled, or None.
    """

    def __init__(self, compile_all: Callable[[], ModuleType | None]) -> None:
        self._compile = compile_all
        self._found: ModuleType | None = None
        self._done = threading.Event()
        logging.getLogger("clarke").info(
            "Compiling loops for large arrays in the background; the audit goes on without them."
        )
        # A daemon: a program that ends meanwhile does not wait for it.
        threading.Thread(target=self._run, name="clarke-compiling", daemon=True).start()

    def _run(self) -> None:
        try:
            self._found = self._compile()
        finally:
            self._done.set()

    def is_done(self) -> bool:
        """Whether it has come to an end."""
        return self._done.is_set()

    def result(self) -> ModuleType | None:
        """What was compiled; None if nothing could be, or not yet."""
        return self._found
