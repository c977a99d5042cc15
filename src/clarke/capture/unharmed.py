"""What a run beside the user's program changes of the user's, and how it is put back."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clarke.capture.written import tensors_of
from clarke.devices import RandomStates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clarke.capture.operators import Operators
    from clarke.torch_compiled import WrittenBack


class WritesGradientError(Exception):
    """A program writes to arguments that have a gradient, or get one: `places` says which."""

    def __init__(self, places: tuple[int, ...]) -> None:
        super().__init__()
        self.places = places


def memory_of(tensor: torch.Tensor) -> int:
    """What tells a tensor's memory from others'; 0 where it has none."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else 0


class Guard(TorchDispatchMode):
    """Copies what a program is about to write to of its arguments.

    Args:
        args: The arguments.
        memory: Where the copies go.
        operators: What is known of operators.
    """

    def __init__(self, args: Sequence[Any], memory: WrittenBack, operators: Operators) -> None:
        super().__init__()
        self._args = args
        self._memory = memory
        self._operators = operators
        self._given: dict[int, list[int]] = {}
        for i, a in enumerate(args):
            if isinstance(a, torch.Tensor) and a.layout is torch.strided:
                self._given.setdefault(memory_of(a), []).append(i)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as of the recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        named, hidden = self._operators.of(func).changed(args, kwargs)
        for tensor in (*named, *hidden):
            places = self._given.get(memory_of(tensor), [])
            if not places:
                continue
            sharing = [cast("torch.Tensor", self._args[i]) for i in places]
            kept = any(t.requires_grad and not t.is_leaf for t in sharing)
            if kept or (
                torch.is_grad_enabled() and any(t is tensor for t in named) and _has_gradient(args)
            ):
                # Autograd would make it part of another graph than the user's.
                raise WritesGradientError(tuple(places))
            if tensor not in self._memory:
                self._memory.remember(tensor)
        return func(*args, **kwargs)


def _has_gradient(args: tuple[Any, ...]) -> bool:
    return any(t.requires_grad for t in tensors_of(args))


class Generators:
    """The states of torch's generators, to put them back."""

    def __init__(self, others: Iterable[torch.Generator]) -> None:
        self._random = RandomStates()
        self._others = [(g, g.get_state()) for g in others]

    def have_drawn(self) -> bool:
        """Whether random numbers have been drawn since."""
        drawn = (not torch.equal(was, g.get_state()) for g, was in self._others)
        return self._random.have_changed() or any(drawn)

    def restore(self) -> None:
        """Put them back; may be called repeatedly."""
        self._random.restore()
        for generator, state in self._others:
            generator.set_state(state)


class QuietThread:
    """Keeps this thread's warnings back, and tells Python nothing of it.

    As a filter of `warnings`, whose `match` is asked for each message; `catch_warnings` would let
    warnings that were shown once be shown again.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._entry = ("ignore", self, Warning, None, 0)
        self._filters: list[Any] = []

    def match(self, _text: str) -> bool:
        """Whether a message is this thread's."""
        return threading.get_ident() == self._thread

    def start(self) -> None:
        """Begin."""
        self._filters = cast("list[Any]", warnings.filters)
        self._filters.insert(0, self._entry)

    def stop(self) -> None:
        """End; also where that has been done."""
        for filters in (self._filters, cast("list[Any]", warnings.filters)):
            for entry in [f for f in filters if f is self._entry]:
                filters.remove(entry)
