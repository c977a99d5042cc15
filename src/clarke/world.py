"""The user's world: what a check saves before it runs the program, and puts back."""

from __future__ import annotations

import torch


class World:
    """RNG state, and the buffers and train/eval modes of every module that runs."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._buffers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._modes: dict[int, tuple[torch.nn.Module, bool]] = {}

    def save_module(self, root: torch.nn.Module) -> None:
        """Remember a module's buffers and modes before it runs for the first time."""
        for module in root.modules():
            self._modes.setdefault(id(module), (module, module.training))
        for buffer in root.buffers():
            if id(buffer) not in self._buffers:
                self._buffers[id(buffer)] = (buffer, buffer.detach().clone())

    def restore(self) -> None:
        """Put everything back; may be called repeatedly."""
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        with torch.no_grad():
            for buffer, value in self._buffers.values():
                same = torch.equal(buffer, value)
                if not same:
                    buffer.copy_(value)
        for module, training in self._modes.values():
            module.training = training
