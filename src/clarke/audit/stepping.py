"""Record nothing while one of torch's own optimizers makes its step.

It differentiates nothing and runs no code of the user's but a closure, during which the recorder
is back; yet every one of its operations would go through Python. What it writes to is noted before.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import optimizer as torch_optimizer

from clarke.audit.judge import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from clarke.audit.doubts import Doubts
    from clarke.audit.penalized import Penalized
    from clarke.capture import Recorder, Shadows

_GLOBAL_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


class OptimizerAside:
    """Steps the recorder aside from an optimizer's pre-hook to its post-hook.

    Used as a context manager around the recorder's. A step that raises has no post-hook: until
    `recover`, which the next backward call does, nothing is recorded, so what it differentiates
    was made out of sight and stays undecided.
    """

    def __init__(self, recorder: Recorder, penalized: Penalized, doubts: Doubts) -> None:
        self._doubts = doubts
        self._recorder = recorder
        self._penalized = penalized
        self._thread = threading.get_ident()
        self._aside = recorder.aside()

    def __enter__(self) -> Self:
        torch_optimizer.register_optimizer_step_pre_hook(self._before)
        torch_optimizer.register_optimizer_step_post_hook(self._after)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Record the steps of optimizers like anything else."""
        # By what they are: an interrupt may have come between a hook and the note of its handle.
        for name in _GLOBAL_HOOKS:
            hooks: Any = getattr(torch_optimizer, name, None) or {}
            for number in [n for n, h in list(hooks.items()) if h in (self._before, self._after)]:
                hooks.pop(number, None)
        self.recover()

    def recover(self) -> None:
        """Record again, if a step left without saying so."""
        self._aside.stop()

    def _before(
        self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> tuple[Any, Any] | None:
        """What a step is to be called with, where that is a closure."""
        if threading.get_ident() != self._thread:
            return None
        self.recover()
        with quietly(), torch._C.DisableTorchFunction():  # nobody else sees anything of it
            self._penalized.note_step(optimizer)
            self._doubts.optimized(p for group in optimizer.param_groups for p in group["params"])
            given = [a for a in (*args, *kwargs.values()) if a is not optimizer and a is not None]
            if not (
                _runs_own_code_only(optimizer) and len(given) <= 1 and all(map(callable, given))
            ):
                return None
            self._step_aside(optimizer)
        if not given:
            return None
        closure = partial(self._recorded, optimizer, given[0])
        return (
            tuple([closure if a is given[0] else a for a in args]),
            {name: closure if a is given[0] else a for name, a in kwargs.items()},
        )

    def _step_aside(self, optimizer: torch.optim.Optimizer) -> None:
        self._recorder.note_writes(list(_written(optimizer)))
        self._aside.start()

    def _recorded(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Any]) -> Any:
        """Run a closure; what raises there ends the step."""
        self.recover()
        result = closure()
        if threading.get_ident() == self._thread:
            with quietly(), torch._C.DisableTorchFunction():
                self._step_aside(optimizer)
        return result

    def _after(self, _optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if threading.get_ident() == self._thread:
            self.recover()


def _runs_own_code_only(optimizer: torch.optim.Optimizer) -> bool:
    """Whether nothing but torch's own update runs in a step, and a closure: no other hook."""
    if not type(optimizer).__module__.startswith("torch.optim."):
        return False
    if any(group.get("differentiable", False) for group in optimizer.param_groups):
        return False
    own = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)  # noqa: SLF001 - have no public name
    everywhere = [getattr(torch_optimizer, name, None) for name in _GLOBAL_HOOKS]
    return not any(own) and all(hooks is not None and len(hooks) == 1 for hooks in everywhere)


def _written(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """The parameters that have a gradient, and the optimizer's own tensors.

    What moves along a line, LBFGS, moves all.
    """
    whole = isinstance(optimizer, torch.optim.LBFGS)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if whole or parameter.grad is not None:
                yield parameter
            if parameter.grad is not None:
                yield parameter.grad
    for state in optimizer.state.values():
        yield from (v for v in state.values() if isinstance(v, torch.Tensor))


def without_hooks(
    recorder: Recorder,
    stepping: OptimizerAside,
    penalized: Penalized,
    shadows: Shadows,
    see_others: Callable[[Recorder], None],
) -> None:
    """Take away what torch.compile would notice of an audit, global hooks, and follow it."""
    recorder.places.do_without_hooks()
    stepping.stop()
    penalized.stop_seeing_steps()
    shadows.begin()
    see_others(recorder)
