"""Forged certificates: every field of a certificate changed in every way that its type allows.

The changes follow from `dataclasses.fields`, all the way down, so that a new field is forged as
well; a value of a type that nothing here knows how to change is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from clarke.capture import Trace, digest
from clarke.steering import Program

MOST_ITEMS = 2  # of a long sequence, so many items are changed one by one


@dataclass(frozen=True)
class Forgery:
    """A changed certificate.

    Attributes:
        path: The field that was changed, from the certificate down, without indices.
        what: What was done to it.
        proof: The certificate.
        slight: The change is as small as a rounding error.
    """

    path: str
    what: str
    proof: Any
    slight: bool = False

    def resealed(self) -> Any:
        """The certificate of a forger who knows how seals are made."""
        return self.proof.sealed()


@dataclass(frozen=True)
class _Change:
    path: str
    what: str
    value: Any
    slight: bool = False


def forgeries(proof: Any, other: Any) -> Iterator[Forgery]:
    """All changed copies of a certificate.

    Args:
        proof: A certificate.
        other: A certificate of the same class for another program with the same shapes.
    """
    for f in fields(proof):
        if f.name == "seal":
            yield Forgery("seal", "dropped", replace(proof, seal=""))
            yield Forgery("seal", "another", replace(proof, seal=other.seal))
            continue
        own, foreign = getattr(proof, f.name), getattr(other, f.name)
        if f.name == "argument" and digest(own) != digest(foreign):
            yield Forgery("argument", "of another program", replace(proof, argument=foreign))
        for change in changes(own, foreign, f.name):
            forged = replace(proof, **{f.name: change.value})
            path = change.path.removeprefix("argument.")
            yield Forgery(path, change.what, forged, change.slight)


def altered(proof: Any, **changed: Any) -> Any:
    """A certificate with other parts, its argument's or its own; its seal stays."""
    own = {f.name for f in fields(proof)}
    inner = {name: value for name, value in changed.items() if name not in own}
    argument = replace(changed.get("argument", proof.argument), **inner)
    outer = {name: value for name, value in changed.items() if name in own}
    return replace(proof, **{**outer, "argument": argument})


def changes(value: Any, other: Any, path: str) -> Iterator[_Change]:
    """Values of the same type that differ from one."""
    if value is None:
        return iter([_Change(path, "filled", other)] if other is not None else [])
    for kind, change in _CHANGES:
        if isinstance(value, kind):
            return change(value, other, path)
    if is_dataclass(value):
        return _changed_fields(value, other, path)
    if callable(value):
        lies = (("dropped", None), ("replaced", _lying(value)))
        return iter([_Change(path, what, lie) for what, lie in lies])
    raise AssertionError(f"nothing here forges a {type(value).__name__}: {path}")


def _changed_fields(value: Any, other: Any, path: str) -> Iterator[_Change]:
    for f in fields(value):
        foreign = getattr(other if type(other) is type(value) else value, f.name)
        for c in changes(getattr(value, f.name), foreign, f"{path}.{f.name}"):
            yield _Change(c.path, c.what, replace(value, **{f.name: c.value}), c.slight)


def _changed_programs(value: Program, other: Any, path: str) -> Iterator[_Change]:
    if other is not value:
        yield _Change(path, "of another program", other)


def _changed_tensors(value: torch.Tensor, other: Any, path: str) -> Iterator[_Change]:
    for c in _changed_arrays(value.detach().numpy(), other, path):
        if c.value is not None:
            tensor = torch.from_numpy(np.ascontiguousarray(c.value))
            yield _Change(c.path, c.what, tensor, c.slight)


def _changed_numbers(value: float, other: Any, path: str) -> Iterator[_Change]:
    if isinstance(value, bool):
        yield _Change(path, "the opposite", not value)
        return
    if isinstance(value, int):
        yield _Change(path, "one more", value + 1)
        return
    yield _Change(path, "by an ulp", math.nextafter(value, math.inf), slight=True)
    yield _Change(path, "a thousand times", value * 1000 or 1.0)
    yield _Change(path, "negated", -value or -1.0)
    yield _Change(path, "one more", value + 1)
    yield _Change(path, "not a number", math.nan)


def _changed_arrays(value: np.ndarray, other: Any, path: str) -> Iterator[_Change]:
    yield _Change(path, "dropped", None)
    if value.size == 0:
        return

    def different(what: str, new: np.ndarray, *, slight: bool = False) -> Iterator[_Change]:
        if new.shape != value.shape or not np.array_equal(new, value, equal_nan=True):
            yield _Change(path, what, new, slight)

    flat = value.reshape(-1)
    for i in {0, flat.size - 1}:
        if value.dtype.kind == "f":
            close, near, far = flat.copy(), flat.copy(), flat.copy()
            close[i] = np.nextafter(close[i], np.inf)
            near[i] += 1e-3 * (abs(near[i]) or 1.0)
            far[i] += 1 + abs(far[i])
            yield from different("one entry by an ulp", close.reshape(value.shape), slight=True)
            yield from different("one entry by a thousandth", near.reshape(value.shape))
            yield from different("one entry by much", far.reshape(value.shape))
            missing = flat.copy()
            missing[i] = np.nan
            yield from different("one entry not a number", missing.reshape(value.shape))
        else:
            moved = flat.copy()
            moved[i] = not moved[i] if value.dtype.kind == "b" else moved[i] + 1
            yield from different("one entry", moved.reshape(value.shape))
    if value.dtype.kind != "b":
        yield from different("negated", -value)
        yield from different("of zeros", np.zeros_like(value))
    if value.ndim:
        yield from different("emptied", value[:0])
        yield from different("without the first", value[1:])
        yield from different("without the last", value[:-1])
        yield from different("turned round", value[::-1].copy())
        yield from different("one twice", np.concatenate([value[:1], value]))


def _changed_sequences(value: Any, other: Any, path: str) -> Iterator[_Change]:
    value = tuple(value)
    if value:
        yield _Change(path, "emptied", ())
        yield _Change(path, "one twice", (*value, value[0]))
    elif other:
        yield _Change(path, "filled", tuple(other))
    if len(value) > 1:
        yield _Change(path, "without the first", value[1:])
        yield _Change(path, "without the last", value[:-1])
        if digest(*value[::-1]) != digest(*value):
            yield _Change(path, "turned round", value[::-1])
    same = isinstance(other, (tuple, list)) and len(other) == len(value)
    for i in sorted({*range(min(len(value), MOST_ITEMS)), len(value) - 1} - {-1}):
        for c in changes(value[i], other[i] if same else value[i], path):
            yield _Change(c.path, c.what, (*value[:i], c.value, *value[i + 1 :]), c.slight)


def _changed_mappings(value: Mapping[Any, Any], other: Any, path: str) -> Iterator[_Change]:
    for key in list(value)[:MOST_ITEMS]:
        rest = {k: v for k, v in value.items() if k != key}
        yield _Change(path, "one entry dropped", rest)
        yield _Change(path, "one entry moved", {**rest, key + 1: value[key]})
        for c in changes(value[key], value[key], path):
            yield _Change(c.path, c.what, {**value, key: c.value}, c.slight)


def _changed_traces(trace: Trace, other: Any, path: str) -> Iterator[_Change]:
    if other is not trace:
        yield _Change(path, "of another program", other)
    for slot, e in trace.externals.items():
        if not e.tensor.is_floating_point() or not e.tensor.numel():
            continue
        for c in changes(e.tensor.detach(), None, f"{path}.externals"):
            if c.value.shape == e.tensor.shape:
                moved = replace(e, tensor=c.value)
                externals = {**trace.externals, slot: moved}
                yield _Change(c.path, c.what, replace(trace, externals=externals), c.slight)
    for i, op in enumerate(trace.ops):
        for a, arg in enumerate(op.args):
            if isinstance(arg, float):
                args = (*op.args[:a], arg + 1, *op.args[a + 1 :])
                ops = (*trace.ops[:i], replace(op, args=args), *trace.ops[i + 1 :])
                yield _Change(f"{path}.ops", "another scalar", replace(trace, ops=ops))


def _lying(gradient: Callable[..., Any]) -> Callable[..., Any]:
    return lambda point: tuple(g + 1 for g in gradient(point))


_CHANGES: tuple[tuple[Any, Callable[[Any, Any, str], Iterator[_Change]]], ...] = (
    (Program, _changed_programs),
    (Trace, _changed_traces),
    (torch.Tensor, _changed_tensors),
    (np.ndarray, _changed_arrays),
    ((bool, int, float), _changed_numbers),
    ((tuple, list), _changed_sequences),
    (Mapping, _changed_mappings),
)
