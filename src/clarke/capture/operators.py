"""What the recorder has to know about an operator, asked once for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.capture.trace import Keep
from clarke.torch_private import run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clarke.capture.live import Node

# Operations whose result has as many entries as a mask has true ones.
_SHAPED = frozenset({"aten::index", "aten::masked_select", "aten::nonzero"})


# Operations whose result has as many entries as the numbers that they read decide.
_OVERWRITING = frozenset(
    {"aten::copy_", "aten::fill_", "aten::zero_", "aten::resize_", "aten::set_"}
)
_COUNTING = frozenset(
    {"aten::nonzero", "aten::_unique", "aten::_unique2", "aten::unique_dim"}
    | {"aten::unique_consecutive", "aten::unique_dim_consecutive", "aten::nonzero_numpy"}
)
# Tell Python of shapes, not of values: forward mode asks them of every tangent.
_ASKING = frozenset({"aten::is_same_size", "aten::_has_same_storage_numel"})
_MADE_LIKE = ("new_", "_new_zeros_with_same_feature_meta")

_WHOLE = frozenset(f"aten::{n}" for n in ("floor", "ceil", "round", "trunc", "sign", "sgn"))
_QUOTIENTS = frozenset({"aten::div", "aten::floor_divide"})
_KEEPS_WHOLE = frozenset(
    f"aten::{n}"
    for n in (
        *("abs", "add", "clamp", "clamp_max", "clamp_min", "maximum", "minimum", "mul", "neg"),
        *("amax", "amin", "fmod", "max", "min", "prod", "relu", "remainder", "rsub", "sub", "sum"),
        *("clone", "expand", "flip", "permute", "reshape", "select", "slice", "squeeze", "stack"),
        *("t", "transpose", "unsqueeze", "view"),
    )
)
_WHOLE_DEPTH = 8


def is_whole(node: Node | None, depth: int = _WHOLE_DEPTH) -> bool:
    """Whether what an operation gave is whole numbers, whatever it read.

    What was cut off on the way counts while its history is there (`follow_whole` takes it back), so
    that where they jump is known of those that made them whole.
    """
    if node is None or depth == 0 or node.hidden_write:
        return False
    name: str = node.func._schema.name
    if name in _WHOLE:
        return bool(node.named.get("decimals", 0) == 0)
    if name in _QUOTIENTS:
        return name == "aten::floor_divide" or node.named.get("rounding_mode") is not None
    if name == "aten::_to_copy":
        return all(not (s.dtype.is_floating_point or s.dtype.is_complex) for s in node.inputs)
    numbers = [a for a in (*node.pattern, *node.named.values()) if isinstance(a, float)]
    return (
        name in _KEEPS_WHOLE
        and bool(node.inputs)
        and all(a.is_integer() for a in numbers)
        and all(
            not s.dtype.is_floating_point
            or (is_whole(s.producer or s.history, depth - 1) and not s.storage.writers)
            for s in node.inputs
        )
    )


def follow_whole(node: Node) -> None:
    """Undo that whole numbers on the way to an operation's were taken for constants.

    Detached whole numbers jump where what made them whole does, and nowhere else.
    """
    if node.func._schema.name in _WHOLE | _QUOTIENTS:
        return
    for slot in node.inputs:
        if slot.dtype.is_floating_point:
            if slot.producer is None:
                slot.producer, slot.history, slot.held = slot.history, None, None
            slot.masked = True
            if slot.producer is not None:
                follow_whole(slot.producer)


def reads_shape_only(func: Any) -> bool:
    """Whether a result without gradient (dropout's noise, say) owes its input only a shape."""
    name: str = func._schema.name.partition("::")[2]
    return name.endswith("_like") or name.startswith(_MADE_LIKE)


class Operator:
    """An operator overload.

    Attributes:
        func: The overload.
        run: The same, to be called.
        plain: Tensors come to it one by one, and all that is to be noted of it is what it reads and
            returns.
        tensorless: It is given no tensors.
        keep: What must be kept of the values it reads.
        written: Positions of the arguments that it writes to.
        written_names: Names of the arguments that it writes to.
        shape_only: A result without gradient owes its input only a shape.
        draws: It draws random numbers.
        cuts: Its results do not depend differentiably on what it reads.
        overwrites: What it writes to does not depend on what was there.
        reads: It hands values, or how many there are of a kind, to Python.
        views: Its result lies where its one tensor does.
        casts: It may turn numbers into whole ones, or tell which of them differ.
        counts: Its result has as many entries as a mask has true ones.
        differentiates: It is the derivative of another one, whose further results it may read.
        lists: Some of its tensors may come in lists.
        tensors_named: Some of its tensors may be keyword arguments.
    """

    __slots__ = (
        "_hidden",
        "casts",
        "counts",
        "cuts",
        "differentiates",
        "draws",
        "func",
        "keep",
        "lists",
        "overwrites",
        "plain",
        "reads",
        "run",
        "shape_only",
        "tensorless",
        "tensors_named",
        "views",
        "written",
        "written_names",
    )

    def __init__(self, func: Any, keep: Keep) -> None:
        name: str = func._schema.name
        self.func = func
        self.run = run_of(func)
        self.keep = keep
        self.shape_only = reads_shape_only(func)
        self.draws = torch.Tag.nondeterministic_seeded in func.tags
        self.overwrites = self.draws or name in _OVERWRITING
        detaches = func is torch.ops.aten.detach.default
        self.cuts = detaches or self.shape_only
        self.casts = name == "aten::_to_copy" or "unique" in name
        self.counts = name in _SHAPED
        self.differentiates = "_backward" in name
        returned = [str(r.type) for r in func._schema.returns]
        self.reads = name in _COUNTING or (
            bool(returned) and not any("Tensor" in r for r in returned) and name not in _ASKING
        )
        kinds = [(a.kwarg_only, str(a.type)) for a in getattr(func._schema, "arguments", ())]
        self.lists = any("Tensor" in kind and "[" in kind for _, kind in kinds)
        self.tensors_named = any(named and "Tensor" in kind for named, kind in kinds)
        self.tensorless = not any("Tensor" in k or k.startswith("t") for _, k in kinds)
        positions, names = set(), set()
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                names.add(argument.name)
                if not argument.kwarg_only:
                    positions.add(i)
        self.written, self.written_names = frozenset(positions), frozenset(names)
        single = [str(r.type) for r in func._schema.returns] == ["Tensor"]
        self.views = single and not names and func._schema.returns[0].alias_info is not None
        noted = names or self.reads or self.cuts or self.casts or self.counts or self.draws
        listed = self.lists or self.tensors_named or self.differentiates
        self.plain = keep is Keep.NOTHING and not (noted or listed)
        # Batch normalisation updates its running statistics, and not every schema says so.
        self._hidden = frozenset(
            i for i, a in enumerate(func._schema.arguments) if a.name.startswith("running_")
        )

    def dtype(self, named: Mapping[str, Any]) -> torch.dtype | None:
        """The type into which a call casts; of what tells numbers apart, that of its counts."""
        return named.get("dtype") if "dtype" in named or not self.reads else torch.int64

    def changed(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The tensors that a call writes to: those that its schema names, and others."""
        given = [args[i] for i in self.written if i < len(args)]
        given += [kwargs[n] for n in self.written_names if n in kwargs]
        listed = [t for a in given for t in (a if isinstance(a, (list, tuple)) else (a,))]
        hidden = [args[i] for i in self._hidden if i < len(args)]
        return (
            [t for t in listed if isinstance(t, torch.Tensor)],
            [t for t in hidden if isinstance(t, torch.Tensor)],
        )


class Operators:
    """Operators by overload.

    Args:
        keep: Says for an overload what must be kept of the values it reads.

    Attributes:
        known: What has been asked for, by the identity of the overload.
    """

    def __init__(self, keep: Callable[[Any], Keep]) -> None:
        self._keep = keep
        # By identity: an overload's hash is computed in Python, every time. The operator holds it.
        self.known: dict[int, Operator] = {}
        self._positions: dict[tuple[int, ...], frozenset[int]] = {}

    def of(self, func: Any) -> Operator:
        """What there is to know about an overload."""
        found = self.known.get(id(func))
        if found is None:
            found = self.known[id(func)] = Operator(func, self._keep(func))
        return found

    def positions(self, found: list[int]) -> frozenset[int]:
        """The same as a set, of which there are few different ones."""
        key = tuple(found)
        known = self._positions.get(key)
        if known is None:
            known = self._positions[key] = frozenset(key)
        return known
