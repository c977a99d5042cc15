"""Notice hooks that may change gradients on their way.

A hook on an intermediate tensor or on a node of autograd's graph can replace the gradient that
passes, and nothing in the recorded operations says so. A verdict from the record alone would then
be about another gradient than the user's; such calls are judged by replaying the program and
comparing. Autograd lists its hooks nowhere, so they are noted when they are registered.

So can what saves tensors for the backward pass in another form, or computes them again: within
`torch.autograd.graph.saved_tensors_hooks` nothing is taken on trust, except from torch's own ways
that give back what they were given (`save_on_cpu`, and checkpoints that restore random states).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import _HookMixin
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from clarke.capture import Recorder, Trace


_MANY = 1000  # intervals that are told apart


class HookSpy:
    """Notes registrations while it is open; used as a context manager."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._slots: set[int] = set()
        self._nodes = False
        self._on_tensor: Any = None
        self._on_node: Any = None
        self._on_saving: tuple[Any, Any] | None = None
        # Operations recorded while tensors were saved in another form: after the first number, up
        # to the second; those still open by their hooks' identity.
        self._saved: list[tuple[int, int]] = []
        self._saving: dict[int, int] = {}

    def __enter__(self) -> Self:
        on_tensor, on_node = torch.Tensor.register_hook, _HookMixin.__dict__["_register_hook"]

        def register_hook(tensor: torch.Tensor, hook: Callable[..., Any]) -> Any:
            if not tensor.is_leaf:
                self._note(tensor)
            return on_tensor(tensor, hook)

        def _register_hook(hooks: Any, hook: Callable[..., Any]) -> Any:
            self._nodes = True
            return on_node.__func__(hooks, hook)

        self._on_tensor, self._on_node = on_tensor, on_node
        self._watch_saving()
        torch.Tensor.register_hook = register_hook  # type: ignore[method-assign]
        _HookMixin._register_hook = staticmethod(_register_hook)  # type: ignore[method-assign]  # noqa: SLF001 - no public name
        return self

    def __exit__(self, *exc: object) -> None:
        torch.Tensor.register_hook = self._on_tensor  # type: ignore[method-assign]
        _HookMixin._register_hook = self._on_node  # type: ignore[method-assign]  # noqa: SLF001 - as above
        if self._on_saving is not None:
            entering, leaving = self._on_saving
            saved_tensors_hooks.__enter__ = entering  # type: ignore[method-assign]
            saved_tensors_hooks.__exit__ = leaving  # type: ignore[method-assign]

    def _watch_saving(self) -> None:
        entering, leaving = saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__

        def enter(hooks: saved_tensors_hooks) -> None:
            if not _gives_back(hooks):
                self._saving[id(hooks)] = self._recorder.count
            entering(hooks)

        def leave(hooks: saved_tensors_hooks, *exc: object) -> None:
            start = self._saving.pop(id(hooks), None)
            if start is not None and start < self._recorder.count:
                self._note_saved(start, self._recorder.count)
            leaving(hooks, *exc)

        self._on_saving = entering, leaving
        saved_tensors_hooks.__enter__ = enter  # type: ignore[method-assign]
        saved_tensors_hooks.__exit__ = leave  # type: ignore[method-assign]

    def _note_saved(self, start: int, end: int) -> None:
        self._saved.append((start, end))
        if len(self._saved) > _MANY:
            # Of the older half all operations in between count, too: those graphs are long gone.
            half = self._saved[: _MANY // 2]
            self._saved[: _MANY // 2] = [(half[0][0], half[-1][1])]

    def _note(self, tensor: torch.Tensor) -> None:
        slot = self._recorder.slot_of(tensor)
        if slot is None:
            self._nodes = True  # nothing is known of where it stands
        else:
            self._slots.add(slot.number)

    def reaches(self, trace: Trace) -> bool:
        """Whether a hook may change a gradient inside of this trace.

        Of a hook on a node it is not known to which graph it belongs: from then on, to all.
        """
        if self._nodes or not self._slots.isdisjoint(trace.slot_dtypes):
            return True
        spans = [*self._saved, *((start, self._recorder.count) for start in self._saving.values())]
        if not spans or not trace.ops or trace.ops[-1].index <= spans[0][0]:
            return False
        return any(start < op.index <= end for start, end in spans for op in trace.ops)


def _gives_back(hooks: saved_tensors_hooks) -> bool:
    """Whether torch itself sees to it that saved tensors come back as they were."""
    if type(hooks) is save_on_cpu:
        return True
    if type(hooks) is not getattr(checkpoint, "_checkpoint_hook", None):
        return False
    frame = _closed_over(hooks.pack_hook, "frame")
    return _closed_over(getattr(frame, "recompute_fn", None), "preserve_rng_state") is True


def _closed_over(function: Any, name: str) -> Any:
    """The value of a variable from around a function; None if it has none of that name."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    if name not in names:
        return None
    return function.__closure__[names.index(name)].cell_contents
