"""The growing record behind a `Trace`.

Its lifetime follows autograd's: a node is held by the slots of its outputs, a slot by the tensor
it stands for (weakly keyed) and by the nodes that read it. When the user drops the last tensor of
an iteration, the iteration's record goes with it; nothing accumulates over a training run.
"""

from __future__ import annotations

import weakref
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from clarke.capture.trace import Ref

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import TypeAlias

    import torch

    from clarke.capture.applied import Application
    from clarke.capture.trace import Location
    from clarke.torch_others import Weak

T = TypeVar("T")
Grown: TypeAlias = "list[T] | tuple[()]"
Place: TypeAlias = "tuple[int | torch.SymInt, torch.Size, tuple[int, ...]]"

# Containers stay empty for most operations, and every new one brings the garbage collector nearer.
NOTHING_KEPT: Final[Mapping[Any, Any]] = MappingProxyType({})


_ADDRESSES = 100_000  # are remembered


def _grown(found: Grown[T], item: T) -> list[T]:
    if isinstance(found, tuple):
        return [item]
    found.append(item)
    return found


class Memory:
    """Some of torch's memory, told apart from whatever has the same address later.

    Args:
        memory: torch's own object, None where there is none (sparse tensors). It is the same as
            long as the memory is there, whether Python holds it or not.
    """

    __slots__ = ("__weakref__", "_memory")

    def __init__(self, memory: torch.UntypedStorage | None) -> None:
        self._memory = None if memory is None else weakref.ref(memory)

    def is_at(self, memory: torch.UntypedStorage) -> bool:
        """Whether it is this one."""
        return self._memory is not None and self._memory() is memory

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor lies there still: ``.data`` may have been given other memory.

        True where there is no memory to compare.
        """
        return self._memory is None or self._memory() is tensor.untyped_storage()

    def is_alive(self) -> bool:
        """Whether a tensor lies there at all."""
        return self._memory is not None and self._memory() is not None


class Gathered(Protocol):
    """A parameter put together for use, in memory that is freed and filled behind tensors."""

    def whole(self) -> torch.Tensor | None:
        """The parameter, while it is there."""

    def version(self) -> int:
        """Counts the writes to it and to what it is put together from."""


class Unrecorded:
    """When some memory was last written to without being recorded.

    Attributes:
        count: How many such writes there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last: dict[int, int] = {}  # by the address of torch's object
        self._forgotten = 0  # all before may have been to any memory

    def note(self, addresses: Iterable[int]) -> None:
        """Something is written to the memory at these addresses."""
        self.count += 1
        self._last.update(dict.fromkeys(addresses, self.count))
        if len(self._last) > _ADDRESSES:
            self._last, self._forgotten = {}, self.count

    def any_since(self, address: int, count: int) -> bool:
        """Whether something has been written there since there were `count` writes."""
        return self._last.get(address, self._forgotten) > count


class Detached(NamedTuple):
    """What was computed from differentiated values without gradients, and from others.

    Of most such results, an evaluation's or a rollout's, nothing is ever asked.

    Attributes:
        epoch: How many backward calls had freed their graph.
        location: Where it was made.
    """

    epoch: int
    location: Location


class Tampering(NamedTuple):
    """A change of some memory behind autograd's back.

    Attributes:
        location: Where.
        behind_writes: Recorded operations had written there before.
        before: Number of the last slot that was there: what is read later has the new values.
    """

    location: Location
    behind_writes: bool
    before: int


class Storage(Memory):
    """Memory shared by aliasing tensors: who wrote to it, and what it held before.

    Args:
        number: Its own.
        memory: As for `Memory`.
    """

    # Defaults stand in the class, here and below: every operation makes some of these objects.
    writers: Grown[Node] = ()
    snapshot: torch.Tensor | None = None
    kept: Grown[weakref.ref[Node]] = ()
    externals: Grown[weakref.ref[Slot]] = ()  # tensors there that no operation has made
    retired = False  # what is read from now on has another history
    cut = False  # what lies there was computed from differentiated values
    virtual = False  # the same, by a custom Function's forward that is still running
    first: weakref.ref[Slot] | None = None  # the first tensor that was seen there
    gathered: Gathered | None = None  # whose it is, where it comes and goes

    def __init__(self, number: int, memory: torch.UntypedStorage | None) -> None:
        self._memory = None if memory is None else weakref.ref(memory)
        self.number = number

    def move(self, memory: torch.UntypedStorage) -> None:
        """What lies there lies elsewhere."""
        self._memory = weakref.ref(memory)

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

    producer: Node | None = None
    held: torch.Tensor | None = None
    # What made it before it was cut off, until the next backward call that frees its graph.
    history: Node | None = None
    key: Weak | None = None  # the tensor that `held` stands for
    cut_by = ""  # the operation whose result autograd takes for a constant
    stopped = False  # computed from differentiated values, but cut off
    # An alias and its version before something unrecorded wrote there, after it had been read.
    rewritten: tuple[torch.Tensor, int] | None = None
    before: torch.Tensor | None = None  # of a leaf: its values before that
    masked = False  # an integer or boolean computed from differentiated values
    # Computed from differentiated values inside a reentrant checkpoint or a custom Function,
    # where autograd is off and no tensor says that it requires a gradient.
    virtual = False
    opaque = ""  # what tensors these are whose operations are not followed
    within: Node | None = None  # the declared Function in whose forward it was made
    place: Place | None = None  # where in its memory an operation wrote to it
    version = 0

    def __init__(
        self, number: int, epoch: int, storage: Storage, dtype: torch.dtype, location: Location
    ) -> None:
        self.number = number
        self.epoch = epoch  # how many backward calls had freed their graph when it was made
        self.storage = storage
        self.dtype = dtype
        self.location = location


def became_variable(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether a constant was told to require a gradient after it had been read."""
    return (
        slot.held is not None
        and slot.producer is None
        and tensor.requires_grad
        and not slot.held.requires_grad
        and not slot.storage.writers
    )


def is_read_again(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether a variable that has been read is what it was then."""
    storage = slot.storage
    return slot.producer is None and not (
        storage.writers or storage.retired or not storage.holds(tensor)
    )


def is_written_unseen(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether something unrecorded (a compiled optimizer) has written to a leaf since it was read.

    What is read from now on are other values; what was read before can no longer be run again.
    """
    return tensor.is_leaf and slot.version != version_of(slot, tensor)


def is_constant(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether a tensor without gradient is a constant that has been read, of which no more is said.

    Then neither the end of a graph nor its memory makes it another one.
    """
    if slot.producer is not None or slot.held is None or slot.stopped or slot.masked:
        return False
    return not (slot.cut_by or slot.storage.retired) and slot.storage.holds(tensor)


def was_unpacked(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether a tensor has a gradient that the operation which made it cannot have given it."""
    return (
        slot.producer is not None
        and not slot.producer.differentiated
        and tensor.requires_grad
        and not tensor.is_leaf
        and not any(n.index > slot.producer.index for n in slot.storage.writers[-1:])
    )


def place_of(tensor: torch.Tensor) -> Place:
    """Where in its memory a tensor lies."""
    return tensor.storage_offset(), tensor.shape, tensor.stride()


def is_rewritten(slot: Slot) -> bool:
    """Whether something has written to a tensor since it was read, without autograd's knowledge."""
    if slot.rewritten is None:
        return False
    alias, version = slot.rewritten
    return alias.is_inference() or alias._version == version


def version_of(slot: Slot, tensor: torch.Tensor) -> int:
    """How often a tensor that no operation has made was written to, as far as it is counted."""
    gathered = slot.storage.gathered
    if gathered is not None:
        return gathered.version()
    return 0 if tensor.is_inference() else tensor._version


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


class Tensor(Enum):
    """Stands in the place of a tensor among an operation's arguments."""

    HERE = "a tensor"


TENSOR: Final = Tensor.HERE


def _filled(value: Any, inputs: Iterator[Slot]) -> Any:
    """An argument with references to the next of `inputs` in the place of tensors."""
    if value is TENSOR:
        return Ref(next(inputs).number)
    if isinstance(value, (list, tuple)) and TENSOR in value:
        return type(value)([_filled(v, inputs) for v in value])
    return value


class Node:
    """One executed operation, with slots in the place of tensors."""

    # Arguments, with `TENSOR` in the place of every tensor: `inputs` has these in order.
    pattern: tuple[Any, ...] = ()
    named: Mapping[str, Any] = NOTHING_KEPT
    inputs: tuple[Slot, ...] = ()
    writers_before: tuple[int, ...] = ()  # of each input's memory; empty if none had any
    outputs: tuple[int | None, ...] = ()
    differentiated = False
    kept: Mapping[int, torch.Tensor] = NOTHING_KEPT
    kept_lists: Mapping[tuple[int, int], torch.Tensor] = NOTHING_KEPT
    kept_named: Mapping[str, torch.Tensor] = NOTHING_KEPT
    drawn: Mapping[int, torch.Tensor] = NOTHING_KEPT
    kept_outputs: Mapping[int, torch.Tensor] = NOTHING_KEPT
    varied: frozenset[int] = frozenset()
    reads_stopped = False
    hidden_write = False
    released = False
    resaved = False  # autograd saved its tensors in another form
    zeros: torch.Tensor | None = None  # where the input was zero, if signs are kept
    early: object = None  # what an early look at its values found
    within: Application | None = None  # the custom Function whose forward ran it

    def __init__(self, index: int, func: Any, location: Location) -> None:
        self.index = index
        self.func = func
        self.location = location

    def arguments(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The positional and the named arguments, with a `Ref` in the place of every tensor."""
        inputs = iter(self.inputs)
        args = tuple([_filled(value, inputs) for value in self.pattern])
        if not self.named:
            return args, NOTHING_KEPT
        return args, {name: _filled(value, inputs) for name, value in self.named.items()}

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments, with a `Ref` in the place of every tensor."""
        return self.arguments()[0]

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The named arguments, likewise."""
        return self.arguments()[1]

    def release(self) -> None:
        """Forget everything; called when the user's own graph has been freed."""
        self.pattern = self.inputs = ()
        self.named = self.kept = self.kept_lists = self.kept_named = NOTHING_KEPT
        self.drawn = self.kept_outputs = NOTHING_KEPT
        self.zeros = self.early = self.within = None
        self.released = True
