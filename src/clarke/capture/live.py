"""The growing record behind a `Trace`.

Its lifetime follows autograd's: a node is held by the slots of its outputs, a slot by the tensor
it stands for (weakly keyed) and by the nodes that read it. When the user drops the last tensor of
an iteration, the iteration's record goes with it; nothing accumulates over a training run.
"""

from __future__ import annotations

import weakref
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from clarke.capture.applied import Application
    from clarke.capture.trace import Location

T = TypeVar("T")
Grown: TypeAlias = "list[T] | tuple[()]"

# Containers stay empty for most operations, and every new one brings the garbage collector nearer.
NOTHING_KEPT: Final[Mapping[Any, Any]] = MappingProxyType({})

_is_gone = torch.UntypedStorage._expired  # noqa: SLF001 - as torch's own StorageWeakRef
_free = torch.UntypedStorage._free_weak_ref  # noqa: SLF001 - the other half of `_weak_ref`


def _grown(found: Grown[T], item: T) -> list[T]:
    if isinstance(found, tuple):
        return [item]
    found.append(item)
    return found


class Memory:
    """Some of torch's memory; while this is held, its address is given to no other.

    Args:
        memory: torch's own object, None where there is none (sparse tensors).
    """

    __slots__ = ("__weakref__", "_frees", "_reserved")

    def __init__(self, memory: torch.UntypedStorage | None) -> None:
        # What `torch.multiprocessing.reductions.StorageWeakRef` does, without two more objects.
        self._reserved: Any = 0
        self._frees: Any = None
        if memory is not None:
            self._reserved = memory._weak_ref()  # noqa: SLF001 - as there
            # A `__del__` of Python's would swallow a KeyboardInterrupt; this is C all through.
            self._frees = weakref.ref(self, partial(next, map(_free, (self._reserved,))))

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor lies there still: ``.data`` may have been given other memory.

        True where there is no memory to compare.
        """
        return not self._reserved or bool(tensor.untyped_storage()._cdata == self._reserved)

    def is_alive(self) -> bool:
        """Whether a tensor lies there at all."""
        return bool(self._reserved) and not _is_gone(self._reserved)


class Writes(Memory):
    """Counts what is written to some memory without being recorded; see `Recorder.writes_to`."""

    __slots__ = ("count",)

    def __init__(self, memory: torch.UntypedStorage | None) -> None:
        super().__init__(memory)
        self.count = 0


class Storage(Memory):
    """Memory shared by aliasing tensors: who wrote to it, and what it held before.

    Args:
        number: Its own.
        memory: As for `Memory`.
    """

    __slots__ = (
        "cut",
        "externals",
        "first",
        "kept",
        "number",
        "retired",
        "snapshot",
        "writers",
    )

    def __init__(self, number: int, memory: torch.UntypedStorage | None) -> None:
        super().__init__(memory)
        self.number = number
        self.writers: Grown[Node] = ()
        self.snapshot: torch.Tensor | None = None
        self.kept: Grown[weakref.ref[Node]] = ()
        self.externals: Grown[weakref.ref[Slot]] = ()  # tensors there that no operation has made
        self.retired = False  # what is read from now on has another history
        self.cut = False  # what lies there was computed from differentiated values
        self.first: weakref.ref[Slot] | None = None  # the first tensor that was seen there

    def add_writer(self, node: Node) -> None:
        """Note that an operation wrote there."""
        self.writers = _grown(self.writers, node)

    def add_kept(self, node: Node) -> None:
        """Note that an operation keeps a value that lies there."""
        self.kept = _grown(self.kept, weakref.ref(node))

    def add_external(self, slot: Slot) -> None:
        """Note a tensor that no operation has made."""
        self.externals = _grown(self.externals, weakref.ref(slot))


class Slot:
    """One tensor object of the user's program."""

    __slots__ = (
        "__weakref__",
        "cut_by",
        "dtype",
        "epoch",
        "held",
        "history",
        "key",
        "location",
        "masked",
        "number",
        "producer",
        "rewritten",
        "stopped",
        "storage",
        "version",
        "virtual",
        "within",
    )

    def __init__(
        self,
        number: int,
        epoch: int,
        storage: Storage,
        dtype: torch.dtype,
        version: int,
        location: Location,
    ) -> None:
        self.number = number
        self.epoch = epoch  # how many backward calls had freed their graph when it was made
        self.storage = storage
        self.dtype = dtype
        self.version = version
        self.location = location
        self.producer: Node | None = None
        self.held: torch.Tensor | None = None
        # What made it before it was cut off, until the next backward call that frees its graph.
        self.history: Node | None = None
        self.key: weakref.ref[torch.Tensor] | None = None  # the tensor that `held` stands for
        self.cut_by = ""  # the operation whose result autograd takes for a constant
        self.stopped = False  # computed from differentiated values, but cut off
        # An alias and its version before something unrecorded wrote there, after it had been read.
        self.rewritten: tuple[torch.Tensor, int] | None = None
        self.masked = False  # an integer or boolean computed from differentiated values
        # Computed from differentiated values inside a reentrant checkpoint or a custom Function,
        # where autograd is off and no tensor says that it requires a gradient.
        self.virtual = False
        self.within: Node | None = None  # the declared Function in whose forward it was made


class Read(NamedTuple):
    """A value that went into Python.

    Attributes:
        at: How many operations had been recorded.
        slot: Its tensor.
        held: The same for integers and booleans, which the program itself holds no longer.
        location: Where it was read.
        number: The number of its slot, which may be gone.
        shape: Not the value was read, but the shape of what it picks.
    """

    at: int
    slot: weakref.ref[Slot]
    held: Slot | None
    location: Location
    number: int
    shape: bool = False


class Node:
    """One executed operation, with slots in the place of tensors."""

    __slots__ = (
        "__weakref__",
        "args",
        "differentiated",
        "drawn",
        "early",
        "func",
        "hidden_write",
        "index",
        "inputs",
        "kept",
        "kept_lists",
        "kept_named",
        "kept_outputs",
        "kwargs",
        "location",
        "outputs",
        "reads_stopped",
        "released",
        "resaved",
        "varied",
        "within",
        "writers_before",
        "zeros",
    )

    def __init__(self, index: int, func: Any, location: Location) -> None:
        self.index = index
        self.func = func
        self.location = location
        self.args: tuple[Any, ...] = ()
        self.kwargs: Mapping[str, Any] = NOTHING_KEPT
        self.inputs: tuple[Slot, ...] = ()
        self.writers_before: tuple[int, ...] = ()  # of each input's memory; empty if none had any
        self.outputs: tuple[int | None, ...] = ()
        self.differentiated = False
        self.kept: Mapping[int, torch.Tensor] = NOTHING_KEPT
        self.kept_lists: Mapping[tuple[int, int], torch.Tensor] = NOTHING_KEPT
        self.kept_named: Mapping[str, torch.Tensor] = NOTHING_KEPT
        self.drawn: Mapping[int, torch.Tensor] = NOTHING_KEPT
        self.kept_outputs: Mapping[int, torch.Tensor] = NOTHING_KEPT
        self.varied: frozenset[int] = frozenset()
        self.reads_stopped = False
        self.hidden_write = False
        self.released = False
        self.resaved = False  # autograd saved its tensors in another form
        self.zeros: torch.Tensor | None = None  # where the input was zero, if signs are kept
        self.early: object = None  # what an early look at its values found
        self.within: Application | None = None  # the custom Function whose forward ran it

    def release(self) -> None:
        """Forget everything; called when the user's own graph has been freed."""
        self.args = self.inputs = ()
        self.kwargs = self.kept = self.kept_lists = self.kept_named = NOTHING_KEPT
        self.drawn = self.kept_outputs = NOTHING_KEPT
        self.zeros = self.early = self.within = None
        self.released = True
