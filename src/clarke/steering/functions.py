"""Custom `torch.autograd.Function`s in a replay: run as they are, with their own backward."""

from __future__ import annotations

import copy
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Ref
from clarke.errors import ReplayError, in_a_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.capture import Applied, OpRecord, Trace


class Called:
    """A custom Function, to be called with other tensors than the program gave it.

    Args:
        applied: Its record.
        dtype: Of the floating point tensors among its arguments.
    """

    def __init__(self, applied: Applied, dtype: torch.dtype = torch.float64) -> None:
        self.applied = applied
        self.args = [_cast(a, dtype) for a in applied.args]
        self._dtype = dtype
        self._inside = _tensors_inside(applied.args)

    def run(self, inputs: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Call it.

        Args:
            inputs: Tensors in place of its arguments, by position.

        Returns:
            Those of its results that the program read, by position.
        """
        args = [
            inputs[i] if i in inputs else a.clone() if isinstance(a, torch.Tensor) else a
            for i, a in enumerate(self.args)
        ]
        if self._inside:
            args = self._with_modules(args)
        out = self.applied.function.apply(*args)  # type: ignore[attr-defined]
        every = out if isinstance(out, (tuple, list)) else (out,)
        return {i: every[i] for i in self.applied.outputs}

    def _with_modules(self, args: list[Any]) -> list[Any]:
        """The arguments, and in the modules among them the same tensors in the same types.

        A Function that is given a module and, for their gradients, the module's parameters reads
        these in the module: there they have to be those that are moved, and that gradients are
        asked for.
        """
        memory: dict[int, Any] = {}
        for held in self._inside:
            same = (i for i, a in enumerate(self.applied.args) if _is_one(held, a))
            at = next(same, None)
            memory[id(held)] = _cast(held, self._dtype) if at is None else args[at]
        return [
            a if isinstance(a, torch.Tensor) else copy.deepcopy(a, memory) if _modules_in(a) else a
            for a in args
        ]


class Functions:
    """The custom Functions of one replay, in place of the operations of their forwards.

    Args:
        trace: What is run.
        dtype: Of the replay.
    """

    def __init__(self, trace: Trace, dtype: torch.dtype) -> None:
        self._trace = trace
        self._dtype = dtype
        self._done: set[int] = set()

    def take(
        self, op: OpRecord, resolve: Callable[[Ref], Any], env: dict[int, torch.Tensor]
    ) -> bool:
        """Whether a Function stands for an operation; then its results are there.

        Raises:
            ReplayError: It cannot be called.
        """
        if op.within is None:
            return False
        if op.within not in self._done:
            self._done.add(op.within)
            applied = self._trace.applied[op.within]
            given = {i: resolve(Ref(slot)) for i, slot in applied.given.items()}
            # It may overwrite them, which leaves do not allow.
            given = {i: x.view_as(x) if x.is_leaf else x for i, x in given.items()}
            try:
                found = Called(applied, self._dtype).run(given)
            except Exception as error:
                raise ReplayError(
                    f"{applied.name} at {applied.location} cannot be run again "
                    f"({in_a_line(error)})."
                ) from error
            env.update({applied.outputs[i]: out for i, out in found.items()})
        return True


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().to(dtype) if value.is_floating_point() else value.detach()


def _modules_in(value: Any) -> list[torch.nn.Module]:
    """The modules that an argument is, is bound to, or holds."""
    if isinstance(value, torch.nn.Module):
        return [value]
    if isinstance(value, MethodType):
        return _modules_in(value.__self__)
    if isinstance(value, partial):
        return _modules_in((value.func, *value.args, value.keywords))
    if isinstance(value, dict):
        return _modules_in(tuple(value.values()))
    if isinstance(value, (tuple, list)):
        return [m for v in value for m in _modules_in(v)]
    return []


def _tensors_inside(args: Sequence[Any]) -> list[torch.Tensor]:
    """Parameters and buffers of the modules among a Function's arguments."""
    return [
        t for module in _modules_in(tuple(args)) for t in (*module.parameters(), *module.buffers())
    ]


def _is_one(one: torch.Tensor, two: Any) -> bool:
    """Whether two tensors are views of all of the same memory."""
    return (
        isinstance(two, torch.Tensor)
        and one.numel() > 0
        and (one.dtype, one.shape, one.stride()) == (two.dtype, two.shape, two.stride())
        and one.data_ptr() == two.data_ptr()
    )
