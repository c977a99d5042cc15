"""Dispatch modes of a user's, which a program runs under beside clarke."""

from torch.utils._python_dispatch import TorchDispatchMode


class Seeing(TorchDispatchMode):
    """Remembers which operators it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))
