"""What there is beside the processor: random states and autocast of whatever device tensors lie on.

Nothing here names a device. Torch knows one accelerator at a time, be it CUDA or somebody's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Memory:
    """The memory of a tensor, as NumPy asks for it."""

    __slots__ = ("__array_interface__", "_tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor  # is there as long as the array
        size, kind = tensor.element_size(), np.dtype(str(tensor.dtype).removeprefix("torch."))
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "strides": tuple([size * s for s in tensor.stride()]),
            "typestr": kind.str,
            "version": 3,
        }


def array_of(tensor: torch.Tensor) -> NDArray[Any]:
    """The values of a tensor on the processor, not to be written, and not copied.

    What `Tensor.numpy` has seen can never be resized again: FSDP frees parameters so, others
    activations. This leaves no mark.

    Args:
        tensor: Neither conjugated nor negated, of a dtype that NumPy has.
    """
    if not tensor.numel():
        return tensor.detach().clone().numpy()
    return np.asarray(_Memory(tensor))


def accelerator() -> str | None:
    """The type of the accelerator that this torch computes on, if there is one."""
    found: Any = getattr(torch, "accelerator", None)  # since torch 2.6
    if found is None or not found.is_available():
        return None
    device = found.current_accelerator()
    return None if device is None else str(device.type)


def device_types() -> tuple[str, ...]:
    """The processor, and the accelerator."""
    other = accelerator()
    return ("cpu",) if other in (None, "cpu") else ("cpu", str(other))


class RandomStates:
    """The states of torch's global generators, to put them back.

    A device that nobody has used yet is left alone: to ask it would begin its use.
    """

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._device = _generators_of(accelerator())
        self._states = _states(self._device)

    def have_changed(self) -> bool:
        """Whether random numbers have been drawn since."""
        pairs = [(self._cpu, torch.get_rng_state())]
        if self._states:
            pairs += zip(self._states, _states(self._device), strict=True)
        return not all(torch.equal(a, b) for a, b in pairs)

    def restore(self) -> None:
        """Put them back; may be called repeatedly."""
        torch.set_rng_state(self._cpu)
        if self._states:
            put = getattr(self._device, "set_rng_state_all", None)
            if put is not None:
                put(self._states)
            else:
                self._device.set_rng_state(self._states[0])


def _generators_of(kind: str | None) -> Any:
    """Torch's module of an accelerator that is in use; None for any other."""
    module: Any = None if kind is None else getattr(torch, kind, None)
    used = getattr(module, "is_initialized", None)
    return module if module is not None and (used is None or used()) else None


def _states(module: Any) -> list[torch.Tensor]:
    every, one = (getattr(module, f"get_rng_state{s}", None) for s in ("_all", ""))
    if every is not None:
        return list(every())
    return [] if one is None else [one()]
