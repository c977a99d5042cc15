"""The immutable record of what ran: operations, the tensors they read, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from clarke.capture.applied import Applied
    from clarke.capture.signs import Signs


class Keep(Enum):
    """What a recorder keeps of an operation's values."""

    NOTHING = "nothing"
    VALUES = "what it reads, and integer results"
    SIGNS = "the signs of what it reads, for a ReLU"
    DISCRETE = "what it reads, where it casts to integers or truth values; else nothing"

    def of(self, dtype: torch.dtype | None) -> Keep:
        """What is kept of a call with this argument `dtype`."""
        if self is not Keep.DISCRETE:
            return self
        whole = dtype is not None and not (dtype.is_floating_point or dtype.is_complex)
        return Keep.VALUES if whole else Keep.NOTHING


@dataclass(frozen=True)
class Location:
    """Where an operation stands: module path in the model, file and line of the user's code."""

    module: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        return f"{self.module} ({place})" if self.module else place


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor among the arguments of a recorded operation."""

    slot: int


class Origin(Enum):
    """How a tensor that no recorded operation made came to be."""

    LEAF = "a leaf that requires a gradient"
    CONSTANT = "a tensor that requires no gradient"
    CUSTOM_FUNCTION = "the output of a custom autograd.Function"
    UNSEEN = "the result of operations that ran before clarke was watching"


@dataclass(frozen=True, eq=False)
class External:
    """A tensor that the program read but no recorded operation made.

    Attributes:
        slot: Its number in the trace.
        tensor: The tensor itself (held strongly).
        origin: How it came to be.
        version: Its version counter when it was first read.
        snapshot: A flat copy of its storage from before a recorded operation first wrote to it,
            or None when none did.
        storage: Number shared by all tensors that alias the same memory.
        name: For a custom function, the name of its backward node.
        location: Where it was first read (for a custom function: where it was made).
        stopped: The value was computed from differentiated values, but detached.
        cut_by: Name of the operation that computed it from differentiated values and whose result
            autograd takes for a constant; "" if none did.
        rewritten: It has been written to since behind autograd's back, or given other memory, so
            that autograd may differentiate with another value than the one that was read.
        before: Of a leaf that has been written to since: the values that were read, if known.
        gathered: Of a parameter in memory that is freed between uses: the parameter. `tensor` has
            its shape and type then, and no values, so that nothing can read freed memory.
    """

    slot: int
    tensor: torch.Tensor
    origin: Origin
    version: int
    snapshot: torch.Tensor | None
    storage: int
    name: str
    location: Location
    stopped: bool
    cut_by: str = ""
    rewritten: bool = False
    before: torch.Tensor | None = None
    gathered: torch.Tensor | None = None

    def seen_as(self, slot: int, *, cut: bool) -> External:
        """The same under another number; whether it was cut off matters only with `cut`."""
        made = object.__new__(External)
        made.__dict__.update(self.__dict__, slot=slot)
        if not cut:
            made.__dict__.update(stopped=False, cut_by="")
        return made


@dataclass(frozen=True, eq=False)
class OpRecord:
    """One executed operation.

    Attributes:
        index: Its position in evaluation order.
        func: The operator overload, for example ``torch.ops.aten.relu.default``.
        args: Positional arguments, a `Ref` in the place of each tensor.
        kwargs: Keyword arguments likewise.
        outputs: Slot numbers of the tensors it returned, None for what is not a tensor.
        differentiated: One of its outputs requires a gradient.
        kept: For operations that the caller asked to keep: values of the tensors among the
            positional arguments, as they were before the operation ran (by position).
        kept_lists: For the same operations, values of tensors inside list arguments, by position
            of the argument and of the tensor in it.
        kept_named: For the same operations, values of the tensors among the keyword arguments.
        drawn: For random operations among them, the positional arguments that they wrote to, as
            they were afterwards.
        varied: Positions of the arguments that required a gradient, or hold a tensor that did.
        stands_for: Name of the recorded operation of which this one is a part, if it is.
        kept_outputs: For the same operations, integer and boolean outputs, and the values that
            come with an index (by position); for random operations all outputs.
        location: Where it stands.
        reads_stopped: It reads a value that was detached from differentiated values.
        hidden_write: It changed a differentiated tensor while gradients were switched off.
        resaved: Its tensors were saved for the backward pass in a form that may come back changed.
        signs: For a ReLU of which only the signs were kept: these. `kept` then holds a stand-in
            with the same signs and the same positive values, made when it is looked at.
        early: What the recorder's early look found at the values when they were there.
        within: Which of the trace's custom Functions ran it in its forward, if one did.
    """

    index: int
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    differentiated: bool
    kept: Mapping[int, torch.Tensor]
    kept_outputs: Mapping[int, torch.Tensor]
    location: Location
    reads_stopped: bool = False
    hidden_write: bool = False
    resaved: bool = False
    kept_lists: Mapping[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    kept_named: Mapping[str, torch.Tensor] = field(default_factory=dict)
    drawn: Mapping[int, torch.Tensor] = field(default_factory=dict)
    varied: frozenset[int] = frozenset()
    stands_for: str = ""
    signs: Signs | None = None
    early: object = None
    within: int | None = None

    def bare(self) -> OpRecord:
        """The same without the values that were kept, which may be large."""
        if self.signs is None and not (
            self.kept or self.kept_outputs or self.kept_lists or self.kept_named
        ):
            return self
        nothing: Mapping[Any, torch.Tensor] = MappingProxyType({})
        return self.holding(
            kept=nothing,
            kept_outputs=nothing,
            kept_lists=nothing,
            kept_named=nothing,
            signs=None,
            early=None,
        )

    def holding(self, **changes: Any) -> OpRecord:
        """The same with other values; what `dataclasses.replace` does, in a fifth of its time."""
        made = object.__new__(OpRecord)
        made.__dict__.update(self.__dict__)
        made.__dict__.update(changes)
        return made

    @property
    def shown(self) -> str:
        """The operator's name as the user knows it."""
        name = self.stands_for or self.short_name
        return name if name.startswith("__") else name.removeprefix("_")  # as in _softmax

    @property
    def name(self) -> str:
        """The overload's name in the dispatcher, such as ``aten::relu.default``."""
        return overload_of(self.func)

    @property
    def short_name(self) -> str:
        """The operator's name without namespace and overload, such as ``relu``."""
        name: str = self.func._schema.name
        return name.rpartition("::")[2]


@dataclass(frozen=True)
class ScalarRead:
    """A tensor's value went into Python (``bool()``, ``item()``) before the result was there.

    Attributes:
        slot: The tensor.
        location: Where it was read.
        shape: It is a mask, and what it picks has a shape that the program may have read.
    """

    slot: int
    location: Location
    shape: bool = False


@dataclass(frozen=True, eq=False)
class Trace:
    """All operations on which one result depends, in evaluation order.

    Attributes:
        ops: The operations.
        externals: What they read but did not make, by slot.
        output: Slot of the result.
        scalar_reads: Values that went into Python before the result was there.
        slot_dtypes: dtype of every slot that the operations mention.
        emptied: The operations' kept values have been let go; `refilled` computes them again.
        applied: Custom Functions whose forward is part of the operations: their backward is their
            author's, not what the operations have for a derivative.
    """

    ops: tuple[OpRecord, ...]
    externals: Mapping[int, External]
    output: int
    scalar_reads: tuple[ScalarRead, ...] = ()
    slot_dtypes: Mapping[int, torch.dtype] = field(default_factory=dict)
    emptied: bool = False
    applied: tuple[Applied, ...] = ()

    def leaves(self) -> tuple[External, ...]:
        """The leaves that require a gradient, in order of first use."""
        found = [e for e in self.externals.values() if e.origin is Origin.LEAF]
        return tuple(sorted(found, key=lambda e: e.slot))


def overload_of(func: Any) -> str:
    """The dispatcher's name of an operator overload, such as ``aten::relu.default``."""
    schema = func._schema
    return f"{schema.name}.{schema.overload_name or 'default'}"


def filled(value: Any, put: Callable[[int], Any]) -> Any:
    """An argument with what `put` gives for a slot in the place of each `Ref`, lists included."""
    if isinstance(value, Ref):
        return put(value.slot)
    if isinstance(value, (list, tuple)) and value:
        return type(value)([filled(v, put) for v in value])
    return value


def input_slots(op: OpRecord) -> tuple[int, ...]:
    """Slots of all tensors among an operation's arguments."""
    found: list[int] = []
    for a in (*op.args, *op.kwargs.values()):
        items = a if isinstance(a, (list, tuple)) else (a,)
        found += [i.slot for i in items if isinstance(i, Ref)]
    return tuple(found)
