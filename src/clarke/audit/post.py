"""What processes that train together tell each other, beside all that the program sends.

A collective of ours would have to stand at one place in the order of the user's on every process,
also where one of them judges nothing, fails or has left. So nothing is collective here: messages
lie under names in the store by which torch's processes have found each other, which knows no order.
Whoever waits for one gives up in time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from clarke.errors import CaptureError, in_a_line
from clarke.numerics import POST_LONGEST_PAUSE, POST_PAUSE, POST_PIECE
from clarke.torch_private import default_store

if TYPE_CHECKING:
    from collections.abc import Sequence


class Post:
    """Messages between processes, each opened by itself on every process.

    Attributes:
        rank: The number of this process.
        world: How many there are.
    """

    def __init__(self) -> None:
        self._store, self.rank, self.world = default_store("clarke")

    def send(self, name: str, content: bytes) -> None:
        """Lay a message under a name, once for whoever asks.

        Raises:
            CaptureError: The store is gone.
        """
        size = int(POST_PIECE)
        pieces = [content[i : i + size] for i in range(0, len(content), size)] or [b""]
        try:
            for number, piece in enumerate(pieces[1:]):
                self._store.set(f"{name}/{number}", piece)
            self._store.set(name, b"%d " % (len(pieces) - 1) + pieces[0])
        except RuntimeError as error:
            raise _gone(error) from error

    def receive(self, names: Sequence[str], seconds: float) -> list[bytes]:
        """The messages of these names.

        Raises:
            CaptureError: They have not come in time, or the store is gone.
        """
        keys = list(names)
        until, pause = time.monotonic() + seconds, float(POST_PAUSE)
        try:
            # Not `wait`, which nothing interrupts, and which writes a warning when its time ends.
            while not self._store.check(keys):
                if time.monotonic() > until:
                    missing = [k for k in keys if not self._has(k)]
                    raise CaptureError(
                        f"Other processes did not answer within {seconds:.1f} seconds "
                        f"({', '.join(missing[:3])}): they judge other steps, or none."
                    )
                time.sleep(pause)
                pause = min(2 * pause, POST_LONGEST_PAUSE)
            return [self._whole(key, self._store.get(key)) for key in keys]
        except RuntimeError as error:
            if isinstance(error, CaptureError):
                raise
            raise _gone(error) from error

    def drop(self, names: Sequence[str]) -> None:
        """Clear away what everybody has read."""
        try:
            for key in [k for k in names if self._store.check([k])]:
                count, _, _ = bytes(self._store.get(key)).partition(b" ")
                for piece in (key, *(f"{key}/{i}" for i in range(int(count)))):
                    self._store.delete_key(piece)
        except RuntimeError:
            return  # a store that cannot, or is gone

    def _has(self, key: str) -> bool:
        return bool(self._store.check([key]))

    def _whole(self, key: str, content: Any) -> bytes:
        count, _, found = bytes(content).partition(b" ")
        return b"".join([found, *(bytes(self._store.get(f"{key}/{i}")) for i in range(int(count)))])


def _gone(error: RuntimeError) -> CaptureError:
    return CaptureError(
        f"The store of torch.distributed does not answer ({in_a_line(error)}), so that the step "
        "cannot be judged over all processes."
    )
