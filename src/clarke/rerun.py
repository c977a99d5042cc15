"""The user's function run again: at other values of its variables, and as it was written."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Any

import torch

from clarke.deadline import UNLIMITED, Deadline
from clarke.errors import (
    ClarkeError,
    InputError,
    OutOfTimeError,
    ReplayError,
    in_a_line,
)
from clarke.torch_compiled import AsWritten
from clarke.undo import at_the_end, contextmanager
from clarke.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def reached_leaves(output: torch.Tensor) -> list[torch.Tensor]:
    """All leaves in the autograd graph of a tensor."""
    found: dict[int, torch.Tensor] = {}
    seen: set[Any] = set()
    todo = [output.grad_fn] if output.grad_fn is not None else []
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        todo += [n for n, _ in node.next_functions if n is not None]
    return list(found.values())


def as_written(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs uncompiled what torch.compile has compiled of it."""
    entered: list[AsWritten] = []

    def stop() -> None:
        for one in entered:
            one.stop()

    at_the_end(stop)

    @functools.wraps(function, updated=())
    def call(*args: Any) -> Any:
        entered[:] = [AsWritten()]
        with entered[0]:
            return function(*args)

    return call


def gradient_of(output: torch.Tensor, leaves: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """What AD returns, one dense tensor per variable; zeros where nothing depends on it."""
    if not leaves:
        return ()
    try:
        # What the function uses may hang on a graph of the user's own: free nothing.
        grads = torch.autograd.grad(output, list(leaves), retain_graph=True, materialize_grads=True)
    except RuntimeError as error:
        if "donated buffer" in str(error):  # of a compiled program, whose graph is its own
            grads = torch.autograd.grad(output, list(leaves), materialize_grads=True)
            return tuple(map(plain, grads))
        if "use_reentrant" in str(error):
            raise InputError(
                "The program uses activation checkpointing with use_reentrant=True, for which "
                "autograd gives no gradient by torch.autograd.grad. "
                "Pass use_reentrant=False to torch.utils.checkpoint.checkpoint, "
                "or judge the loss.backward() of the training loop."
            ) from error
        if "second time" in str(error) or "freed" in str(error):
            raise InputError(
                "The graph of the result has already been freed by a backward call. Compute the "
                "result inside the function, without calling backward there."
            ) from error
        raise
    return tuple(map(plain, grads))


def plain(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient without its graph, of which every entry is there."""
    found = gradient.detach()
    return found if found.layout is torch.strided else found.to_dense()


class Rerun:
    """Runs the user's function at other values of its variables."""

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        leaves: Sequence[torch.Tensor],
        world: World,
        deadline: Deadline = UNLIMITED,
    ) -> None:
        self._deadline = deadline
        self._cost = 0.0  # seconds of the last run, of what the user's code takes
        self._function = function
        self._arguments = arguments
        self._leaves = tuple(leaves)
        self._world = world

    def gradient(self, point: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """AD's gradient at `point`; the variables are put back afterwards.

        Raises:
            ReplayError: The function does not take that point, and says so in its own way.
        """
        with self.moved(point):
            try:
                with torch.enable_grad():
                    output = self._function(*self._arguments)
                return gradient_of(output, self._leaves)
            except ClarkeError:
                raise
            except Exception as error:
                raise ReplayError(
                    f"Beside the point the function raises {in_a_line(error)}. Pass a point around "
                    "which it is defined."
                ) from error

    def here(self) -> tuple[tuple[torch.Tensor, ...], float]:
        """AD's gradient at the point itself, and the value; what the user's code raises passes."""
        self._world.restore()
        try:
            with self._deadline.paused(), torch.enable_grad():
                output = self._function(*self._arguments)
                return gradient_of(output, self._leaves), float(output.detach())
        finally:
            self._world.restore()

    def leaves(self) -> list[torch.Tensor]:
        """The leaves that another run at the same point depends on."""
        self._world.restore()
        try:
            with torch.enable_grad():
                return reached_leaves(self._function(*self._arguments))
        finally:
            self._world.restore()

    def value(self, point: Sequence[torch.Tensor]) -> float:
        """The function's value at `point`; the variables are put back afterwards.

        NaN where it takes no such point: it may check its input, or return another number of
        values there.
        """
        with self.moved(point), torch.enable_grad():
            try:
                return float(self._function(*self._arguments).detach())
            except OutOfTimeError:
                raise
            except Exception:  # noqa: BLE001 - in whatever way it says so
                return math.nan

    def run(self) -> Any:
        """What the function returns where its variables are."""
        return self._function(*self._arguments)

    @contextmanager
    def moved(self, point: Sequence[torch.Tensor]) -> Iterator[None]:
        """The variables at another point; they are put back afterwards."""
        self._deadline.afford(self._cost, "running the function again beside the point")
        started = time.monotonic()
        self._world.restore()
        originals = [x.data for x in self._leaves]
        try:
            for x, value in zip(self._leaves, point, strict=True):
                x.data = value.detach().to(x.dtype).clone()
            yield
        finally:
            for x, value in zip(self._leaves, originals, strict=True):
                x.data = value
            self._world.restore()
            self._cost = time.monotonic() - started
