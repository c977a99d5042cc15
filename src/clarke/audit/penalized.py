"""Leaves that a program differentiates on its own account, as gradient penalties do.

``g, = torch.autograd.grad(critic(z), z, create_graph=True)`` with ``z.requires_grad_()`` is a call
of the user's own, judged by itself. That a later ``loss.backward()`` adds to ``z.grad`` as well is
a by-product that nobody takes: what an optimizer will use are the parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.capture import TensorTable

if TYPE_CHECKING:
    from clarke.audit.engine import BackwardCall


class Penalized:
    """Remembers such leaves; parameters, and what an optimizer has stepped, are none."""

    def __init__(self) -> None:
        self._leaves: TensorTable[bool] = TensorTable()
        self._sees_steps = True

    def note(self, call: BackwardCall) -> None:
        """Look at a call that the user makes."""
        if call.accumulates or not call.create_graph:
            return
        for x in call.inputs:
            if isinstance(x, torch.Tensor) and x.is_leaf and not isinstance(x, torch.nn.Parameter):
                self._leaves.set(x, self._leaves.get(x) is not False)

    def note_step(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer takes the gradients of these leaves."""
        if not self._leaves.entries:
            return
        for group in optimizer.param_groups:
            for x in group["params"]:
                if self._leaves.get(x):
                    self._leaves.set(x, False)

    def stop_seeing_steps(self) -> None:
        """From now on optimizers step unseen, so that any leaf may be one of theirs."""
        self._sees_steps = False

    def __bool__(self) -> bool:
        return self._sees_steps and len(self._leaves) > 0

    def __contains__(self, leaf: torch.Tensor) -> bool:
        return self._sees_steps and self._leaves.get(leaf) is True
