"""A recorded program as plain data, and back: operators by name, arguments, wiring, constants.

Nothing of a file is run but operators of `aten` that the default registry knows, on tensors of the
file. What else a record may hold (custom functions, operators of others) has no form here.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import (
    External,
    FunctionSchema,
    Location,
    OpRecord,
    Origin,
    Ref,
    ScalarRead,
    Trace,
)
from clarke.errors import UnsupportedError
from clarke.kinks import OpKind, default_registry
from clarke.kinks.facts import words
from clarke.kinks.smooth import classify
from clarke.proof.checked import fields, items, printable, text, truth, whole
from clarke.proof.container import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Tensors = dict[str, torch.Tensor]

_DTYPES = MappingProxyType(
    {str(d).removeprefix("torch."): d for d in vars(torch).values() if isinstance(d, torch.dtype)}
)
_LAYOUTS = MappingProxyType({"strided": torch.strided})
_FORMATS = MappingProxyType(
    {
        str(f).removeprefix("torch."): f
        for f in (
            torch.contiguous_format,
            torch.preserve_format,
            torch.channels_last,
            torch.channels_last_3d,
        )
    }
)
# What programs compute of integers; of other numbers nobody vouches for them, and no verdict does.
_OF_INTEGERS = words("aminmax bincount gcd lcm nonzero_static one_hot")
_FLAGS = ("differentiated", "reads_stopped", "hidden_write", "resaved")


def program_to_plain(trace: Trace, variables: Sequence[int], tensors: Tensors) -> dict[str, Any]:
    """A trace as plain data; its tensors are added to `tensors`.

    Raises:
        UnsupportedError: It holds what has no form in a file.
    """
    places: dict[Location, int] = {}
    memories: set[int] = set()
    return {
        "ops": [_op_to_plain(op, i, places, tensors) for i, op in enumerate(trace.ops)],
        "read": [
            _external_to_plain(trace.externals[s], places, memories, tensors)
            for s in sorted(trace.externals)
        ],
        "output": trace.output,
        "variables": list(variables),
        "scalar_reads": [
            {"slot": r.slot, "shape": r.shape, "place": _place(r.location, places)}
            for r in trace.scalar_reads
        ],
        "places": [[p.module, p.file, p.line, p.function] for p in places],
    }


def _place(location: Location, places: dict[Location, int]) -> int:
    parts = (printable(p) for p in (location.module, location.file, location.function))
    module, file, function = parts
    return places.setdefault(Location(module, file, location.line, function), len(places))


def _name(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _op_to_plain(
    op: OpRecord, number: int, places: dict[Location, int], tensors: Tensors
) -> dict[str, Any]:
    if isinstance(op.func._schema, FunctionSchema):
        raise UnsupportedError(
            f"{op.shown} at {op.location} is a custom Function, which is code, and a file of a "
            "proof holds none. Verify the certificate where it was made."
        )
    if not op.name.startswith("aten::"):
        raise UnsupportedError(
            f"{op.shown} at {op.location} is none of torch's own operators, and only these are run "
            "from a file. Verify the certificate where it was made."
        )
    found: dict[str, Any] = {
        "op": op.name,
        "args": [_value_to_plain(a, op) for a in op.args],
        "named": {k: _value_to_plain(v, op) for k, v in op.kwargs.items()},
        "results": list(op.outputs),
        "flags": [f for f in _FLAGS if getattr(op, f)],
        "place": _place(op.location, places),
    }
    if default_registry().known(op.func).kind is OpKind.RANDOM:
        for kind, kept in (("read", op.kept), ("drawn", op.drawn), ("made", op.kept_outputs)):
            for i, tensor in kept.items():
                tensors[f"op.{number}.{kind}.{i}"] = tensor
    return found


def _value_to_plain(value: Any, op: OpRecord) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case str():
            return {"text": value}
        case Ref():
            return {"slot": value.slot}
        case list() | tuple():
            return [_value_to_plain(v, op) for v in value]
        case torch.dtype():
            return {"dtype": _name(value)}
        case torch.device():
            return {"device": "cpu"}
        case torch.layout() if _name(value) in _LAYOUTS:
            return {"layout": _name(value)}
        case torch.memory_format():
            return {"format": _name(value)}
        case _:
            raise UnsupportedError(
                f"{op.shown} at {op.location} has an argument of type {type(value).__name__}, for "
                "which a file of a proof has no form. Verify the certificate where it was made."
            )


def _external_to_plain(
    e: External, places: dict[Location, int], memories: set[int], tensors: Tensors
) -> dict[str, Any]:
    tensor = e.tensor.detach()
    if tensor.layout != torch.strided:
        raise UnsupportedError(
            f"The program reads a sparse tensor at {e.location}, for which a file of a proof has "
            "no form. Verify the certificate where it was made."
        )
    found: dict[str, Any] = {
        "slot": e.slot,
        "origin": e.origin.name,
        "memory": None if e.snapshot is None else e.storage,
        "name": printable(e.name),
        "stopped": e.stopped,
        "cut_by": printable(e.cut_by),
        "rewritten": e.rewritten,
        "place": _place(e.location, places),
        "view": None,
    }
    if e.snapshot is not None:
        found["view"] = [list(tensor.shape), list(tensor.stride()), tensor.storage_offset()]
        if e.storage not in memories:
            memories.add(e.storage)
            tensors[f"memory.{e.storage}"] = e.snapshot
        return found
    if not tensor.is_contiguous() and tensor.numel():
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        found["view"] = [list(tensor.shape), list(tensor.stride()), 0]
        tensor = tensor.as_strided((reach + 1,), (1,))
    tensors[f"slot.{e.slot}"] = tensor
    return found


def program_from_plain(plain: Any, tensors: Mapping[str, torch.Tensor]) -> tuple[Trace, list[int]]:
    """The trace and its variables.

    Raises:
        ProofError: Anything is out of place.
    """
    keys = {"ops", "read", "output", "variables", "scalar_reads", "places"}
    plain = fields(plain, keys, "program")
    places = [_location(p) for p in items(plain["places"], "places")]
    read = [
        _external(e, i, places, tensors) for i, e in enumerate(items(plain["read"], "program.read"))
    ]
    externals = {e.slot: e for e in read}
    if len(externals) != len(read):
        raise refuse("program.read names a slot twice")
    ops = tuple(_op(o, i, places, tensors) for i, o in enumerate(items(plain["ops"], "ops")))
    known = {*externals}
    for i, op in enumerate(ops):
        for slot in _slots(op):
            if slot not in known:
                raise refuse(f"operation {i} reads slot {slot}, which nothing has made")
        known.update(s for s in op.outputs if s is not None)
    reads = [
        fields(r, {"slot", "shape", "place"}, "a read")
        for r in items(plain["scalar_reads"], "reads")
    ]
    trace = Trace(
        ops=ops,
        externals=MappingProxyType(externals),
        output=whole(plain["output"], "program.output"),
        scalar_reads=tuple(
            ScalarRead(whole(r["slot"], "a read"), _at(places, r["place"]), truth(r["shape"]))
            for r in reads
        ),
        emptied=True,
    )
    if trace.output not in known:
        raise refuse(f"program.output is slot {trace.output}, which nothing has made")
    variables = [whole(v, "program.variables") for v in items(plain["variables"], "variables")]
    if not externals.keys() >= set(variables):
        raise refuse("program.variables names a slot that the program does not read")
    return trace, variables


def _location(plain: Any) -> Location:
    place = items(plain, "a place")
    if len(place) != 4:
        raise refuse("a place is not module, file, line and function")
    return Location(text(place[0]), text(place[1]), whole(place[2], "a place"), text(place[3]))


def _at(places: list[Location], index: Any) -> Location:
    number = whole(index, "a place")
    if not 0 <= number < len(places):
        raise refuse("a place is not in program.places")
    return places[number]


def _slots(op: OpRecord) -> list[int]:
    found: list[int] = []
    todo = [*op.args, *op.kwargs.values()]
    while todo:
        value = todo.pop()
        if isinstance(value, Ref):
            found.append(value.slot)
        elif isinstance(value, list):
            todo += value
    return found


def _op(
    plain: Any, position: int, places: list[Location], tensors: Mapping[str, torch.Tensor]
) -> OpRecord:
    what = f"operation {position}"
    keys = {"op", "args", "named", "results", "flags", "place"}
    plain = fields(plain, keys, what)
    func = _overload(plain["op"], what)
    named = plain["named"]
    if not isinstance(named, dict):
        raise refuse(f"the named arguments of {what} are no table")
    flags = items(plain["flags"], what)
    if flags != [f for f in _FLAGS if f in flags]:
        raise refuse(f"{what} has flags that are not known")
    results = items(plain["results"], what)
    kept: dict[str, dict[int, torch.Tensor]] = {"read": {}, "drawn": {}, "made": {}}
    if default_registry().known(func).kind is OpKind.RANDOM:
        for kind, found in kept.items():
            for i in range(max(len(results), len(plain["args"]))):
                tensor = tensors.get(f"op.{position}.{kind}.{i}")
                if tensor is not None:
                    found[i] = tensor
    return OpRecord(
        index=position,
        func=func,
        args=tuple(_value(a, what) for a in items(plain["args"], what)),
        kwargs=MappingProxyType({k: _value(v, what) for k, v in named.items()}),
        outputs=tuple(None if r is None else whole(r, what) for r in results),
        kept=MappingProxyType(kept["read"]),
        drawn=MappingProxyType(kept["drawn"]),
        kept_outputs=MappingProxyType(kept["made"]),
        location=_at(places, plain["place"]),
        differentiated="differentiated" in flags,
        reads_stopped="reads_stopped" in flags,
        hidden_write="hidden_write" in flags,
        resaved="resaved" in flags,
    )


def _overload(name: Any, what: str) -> Any:
    """An operator of torch that clarke knows, if only as one of masks: nothing else is ever run."""
    space, _, rest = text(name).partition("::")
    packet, _, overload = rest.partition(".")
    if space == "aten" and packet.isidentifier() and overload.isidentifier():
        func = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        known = default_registry().known(func) if isinstance(func, torch._ops.OpOverload) else None
        if known is not None and (
            known.kind is not OpKind.UNKNOWN
            or known.lowering is not None
            or classify(name) is not None
            or packet in _OF_INTEGERS
        ):
            return func
    raise refuse(f"{what} is {name!r}, an operator that clarke does not know")


_TAGGED: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "float": lambda v: float(v) if v in ("inf", "-inf", "nan") else None,
        "text": lambda v: v if isinstance(v, str) else None,
        "slot": lambda v: Ref(whole(v, "a slot")),
        "dtype": _DTYPES.get,
        "device": lambda v: torch.device("cpu") if v == "cpu" else None,
        "layout": _LAYOUTS.get,
        "format": _FORMATS.get,
    }
)


def _value(plain: Any, what: str, depth: int = 0) -> Any:
    if plain is None or isinstance(plain, (bool, float)):
        return plain
    if isinstance(plain, int):
        return whole(plain, what)
    if isinstance(plain, list) and depth < 2:
        return [_value(v, what, depth + 1) for v in items(plain, what)]
    if isinstance(plain, dict) and len(plain) == 1:
        ((tag, content),) = plain.items()
        read = _TAGGED.get(tag)
        if read is not None and isinstance(content, (str, int)):
            found = read(content)
            if found is not None:
                return found
    raise refuse(f"{what} has an argument that is not known")


def _external(
    plain: Any, position: int, places: list[Location], tensors: Mapping[str, torch.Tensor]
) -> External:
    what = f"program.read[{position}]"
    keys = {"slot", "origin", "memory", "name", "stopped", "cut_by", "rewritten", "place", "view"}
    plain = fields(plain, keys, what)
    slot, memory = whole(plain["slot"], what), plain["memory"]
    storage = slot if memory is None else whole(memory, what)
    if text(plain["origin"]) not in Origin.__members__:
        raise refuse(f"{what} has an origin that is not known")
    origin = Origin[plain["origin"]]
    own = None if memory is not None else tensors.get(f"slot.{slot}")
    snapshot = None if memory is None else tensors.get(f"memory.{storage}")
    if (own is None and snapshot is None) or (snapshot is not None and plain["view"] is None):
        raise refuse(f"{what} has no tensor")
    flat = snapshot if own is None else own
    tensor = flat if plain["view"] is None else _viewed(flat, plain["view"], what)
    if tensor is None:
        raise refuse(f"{what} has no tensor")
    if origin is Origin.LEAF:
        if not tensor.is_floating_point() or plain["stopped"] or plain["cut_by"]:
            raise refuse(f"{what} is a leaf, and does not vary")
        tensor = tensor.detach().requires_grad_()
    return External(
        slot=slot,
        tensor=tensor,
        origin=origin,
        version=tensor._version,
        snapshot=snapshot if own is None else None,
        storage=storage,
        name=text(plain["name"]),
        location=_at(places, plain["place"]),
        stopped=truth(plain["stopped"]),
        cut_by=text(plain["cut_by"]),
        rewritten=truth(plain["rewritten"]),
    )


def _viewed(flat: torch.Tensor | None, view: Any, what: str) -> torch.Tensor | None:
    view = items(view, what)
    if flat is None or flat.dim() != 1 or len(view) != 3:
        raise refuse(f"{what} is no view of a tensor")
    shape = [whole(n, what) for n in items(view[0], what)]
    strides = [whole(s, what) for s in items(view[1], what)]
    offset = whole(view[2], what)
    if len(shape) != len(strides) or min([*shape, *strides, offset]) < 0:
        raise refuse(f"{what} is no view of a tensor")
    reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if all(shape) else -1
    if offset + reach >= len(flat) or math.prod(shape) > 16 * max(len(flat), 1 << 16):
        raise refuse(f"{what} reaches beyond its tensor")
    return flat.as_strided(shape, strides, offset)
