"""Which tensors a function makes itself, as opposed to those that it was given or closes over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clarke.capture.arguments import gather_tensors
from clarke.torch_private import leave_mode, mode_flags

if TYPE_CHECKING:
    from typing_extensions import Self

# What Python data has just been made into passes through these, the only sign of its making.
_LIFTS: Final = frozenset({torch.ops.aten.lift.default, torch.ops.aten.lift_fresh.default})


class Made(TorchDispatchMode):
    """Notes every tensor and every piece of memory that operations make while it is open.

    An address that was once given to something new cannot belong to something older: addresses
    are all that has to be kept. Unseen are wrappers that no operator makes (``nn.Parameter``), of
    which only the memory is new.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tensors: set[int] = set()
        self._memory: set[int] = set()
        self._flags: tuple[bool, ...] = ()

    def __enter__(self) -> Self:
        self._flags = mode_flags()
        super().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        leave_mode(self, self._flags)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as of the recorder

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Asked by dynamo: whether programs are compiled as if nobody watched."""
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        results: list[torch.Tensor] = []
        gather_tensors((out,), results)
        if results:
            given: list[torch.Tensor] = []
            if func not in _LIFTS:
                gather_tensors((*args, *kwargs.values()), given)
            old = {t._cdata for t in given}
            memory = {_memory(t) for t in given}
            for tensor in results:
                if tensor._cdata not in old:
                    self._tensors.add(tensor._cdata)
                    if _memory(tensor) not in memory:
                        self._memory.add(_memory(tensor))
        return out

    def is_made(self, tensor: torch.Tensor) -> bool | None:
        """Whether a tensor was made here; None where only its memory is known to be new.

        Then it is a wrapper of a new tensor, or an old one that was given new values by
        assignment to ``.data``.
        """
        if tensor._cdata in self._tensors:
            return True
        return None if _memory(tensor) in self._memory else False


def _memory(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # sparse: it has none
        return 0
