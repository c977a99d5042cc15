"""Record nothing while one of torch's own optimizers makes its step.

It differentiates nothing and runs no code of the user's, but every one of its operations would go
through Python. What it writes to is noted before.
"""

from __future__ import annotations

import threading
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

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        self.recover()
        with quietly(), torch._C.DisableTorchFunction():  # nobody else sees anything of it
            self._penalized.note_step(optimizer)
            self._doubts.optimized(p for group in optimizer.param_groups for p in group["params"])
            if _runs_own_code_only(optimizer, args, kwargs):
                self._recorder.note_writes(list(_written(optimizer)))
                self._aside.start()

    def _after(self, _optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if threading.get_ident() == self._thread:
            self.recover()


def _runs_own_code_only(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> bool:
    """Whether nothing but torch's own update runs in a step: no closure, no other hook."""
    if not type(optimizer).__module__.startswith("torch.optim."):
        return False
    given = [*args, *kwargs.values()]
    if any(a is not optimizer and a is not None for a in given):
        return False
    if any(group.get("differentiable", False) for group in optimizer.param_groups):
        return False
    own = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)  # noqa: SLF001 - have no public name
    everywhere = [getattr(torch_optimizer, name, None) for name in _GLOBAL_HOOKS]
    return not any(own) and all(hooks is not None and len(hooks) == 1 for hooks in everywhere)


def _written(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """The parameters that have a gradient, and the optimizer's own tensors."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield parameter
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
