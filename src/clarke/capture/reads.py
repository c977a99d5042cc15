"""Whole tensors that a program reads into Python, past the dispatcher."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from typing_extensions import Self

    from clarke.capture.recorder import Recorder

_READERS = ("tolist", "numpy", "__array__", "__dlpack__")


class PythonReads:
    """Notes ``tolist()``, ``numpy()`` and the like, of which no operator knows.

    A context manager; while it is open, these methods of `torch.Tensor` are its own.

    Args:
        recorder: Is told what was read.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._originals: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for name in _READERS:
            # What the class only inherits is put back by taking ours away.
            self._originals[name] = torch.Tensor.__dict__.get(name)
            setattr(torch.Tensor, name, self._noting(getattr(torch.Tensor, name)))
        return self

    def __exit__(self, *exc: object) -> None:
        for name, original in self._originals.items():
            if original is None:
                delattr(torch.Tensor, name)
            else:
                setattr(torch.Tensor, name, original)

    def _noting(self, method: Any) -> Any:
        @functools.wraps(method)
        def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._recorder.note_read(tensor)
            return method(tensor, *args, **kwargs)

        return read
