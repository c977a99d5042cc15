"""The user's world: what a check saves before it runs the program, and puts back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clarke.devices import RandomStates


@dataclass(frozen=True, eq=False)
class _Saved:
    """One tensor as it was: value, flag and accumulated gradient."""

    tensor: torch.Tensor
    value: torch.Tensor
    requires_grad: bool
    grad: torch.Tensor | None
    grad_value: torch.Tensor | None

    def restore(self) -> None:
        _write_back(self.tensor, self.value)
        if self.tensor.is_leaf and self.tensor.requires_grad != self.requires_grad:
            self.tensor.requires_grad_(self.requires_grad)
        if not self.tensor.is_leaf:
            return
        if self.tensor.grad is not self.grad:
            self.tensor.grad = self.grad
        if self.grad is not None and self.grad_value is not None:
            _write_back(self.grad, self.grad_value)


def _write_back(tensor: torch.Tensor, value: torch.Tensor) -> None:
    # Through `.data`, so that graphs which saved the tensor see no new version.
    if tensor.shape == value.shape and not torch.equal(tensor, value):
        tensor.data.copy_(value)


class World:
    """Random states; parameters, buffers and modes of every module that runs; given tensors."""

    def __init__(self) -> None:
        self._random = RandomStates()
        self._python = random.getstate()
        self._numpy: Any = np.random.get_state()  # noqa: NPY002 - the global one is the user's
        self._saved: dict[int, _Saved] = {}
        self._modes: dict[int, tuple[torch.nn.Module, bool]] = {}
        self._buffers: dict[int, tuple[torch.nn.Module, dict[str, torch.Tensor | None]]] = {}

    def save_module(self, root: torch.nn.Module) -> None:
        """Remember a module's tensors and modes before it runs for the first time."""
        for module in root.modules():
            self._modes.setdefault(id(module), (module, module.training))
            own: dict[str, torch.Tensor | None] = dict(
                module.named_buffers(recurse=False, remove_duplicate=False)
            )
            self._buffers.setdefault(id(module), (module, own))
        for tensor in (*root.parameters(), *root.buffers()):
            self.save_tensor(tensor)

    def save_tensor(self, tensor: torch.Tensor) -> None:
        """Remember a tensor's value, flag and gradient."""
        if id(tensor) in self._saved or tensor.is_inference() or tensor.layout != torch.strided:
            return
        grad = tensor.grad if tensor.is_leaf else None
        self._saved[id(tensor)] = _Saved(
            tensor,
            tensor.detach().clone(),
            tensor.requires_grad,
            grad,
            None if grad is None or grad.layout != torch.strided else grad.detach().clone(),
        )

    def holds_still(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is known to have the value that it had when it was saved."""
        saved = self._saved.get(id(tensor))
        return saved is not None and torch.equal(saved.value, tensor.detach())

    def has_drawn(self) -> bool:
        """Whether random numbers have been drawn since, from any of the global generators."""
        numpy: Any = np.random.get_state()  # noqa: NPY002 - as above
        return not (
            not self._random.have_changed()
            and self._python == random.getstate()
            and all(np.array_equal(a, b) for a, b in zip(self._numpy, numpy, strict=True))
        )

    def restore(self) -> None:
        """Put everything back; may be called repeatedly."""
        self._random.restore()
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002 - as above
        for module, buffers in self._buffers.values():
            for name, buffer in buffers.items():
                if getattr(module, name, None) is not buffer:
                    setattr(module, name, buffer)
        with torch.no_grad():
            for saved in self._saved.values():
                saved.restore()
        for module, training in self._modes.values():
            module.training = training
