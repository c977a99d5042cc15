"""Whole tensors that a program reads into Python, past the dispatcher."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.undo import at_the_end

if TYPE_CHECKING:
    from typing_extensions import Self

    from clarke.capture.recorder import Recorder

_READERS = ("tolist", "numpy", "__array__", "__dlpack__")
_changing: Final = threading.RLock()  # the class is the same for all threads


class PythonReads:
    """Notes ``tolist()``, ``numpy()`` and the like, of which no operator knows.

    A context manager; while any is open, these methods of `torch.Tensor` are clarke's. One method
    stands for those of all threads, so that they may end in any order.

    Args:
        recorder: Is told what was read, in the thread that opens this.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._thread = threading.get_ident()

    def __enter__(self) -> Self:
        at_the_end(self.stop)
        with _changing:
            for name in _READERS:
                listening = getattr(torch.Tensor.__dict__.get(name), "clarke_listening", None)
                if listening is None:
                    setattr(torch.Tensor, name, _noting(name, [self]))
                else:
                    listening.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Note nothing any more; the last one puts torch's own methods back."""
        with _changing:
            for name in _READERS:
                method: Any = torch.Tensor.__dict__.get(name)
                listening = getattr(method, "clarke_listening", None)
                if listening is None:
                    continue
                if self in listening:
                    listening.remove(self)
                if listening:
                    continue
                if method.clarke_inherited:
                    delattr(torch.Tensor, name)
                else:
                    setattr(torch.Tensor, name, method.__wrapped__)

    def note(self, tensor: torch.Tensor) -> None:
        """A tensor has been read."""
        if threading.get_ident() == self._thread:
            self._recorder.note_read(tensor)


def _noting(name: str, listening: list[PythonReads]) -> Any:
    method = getattr(torch.Tensor, name)

    @functools.wraps(method)
    def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        for reads in tuple(listening):
            reads.note(tensor)
        return method(tensor, *args, **kwargs)

    marked: Any = read
    marked.clarke_listening = listening
    # What the class only inherits is put back by taking ours away.
    marked.clarke_inherited = name not in torch.Tensor.__dict__
    return read
