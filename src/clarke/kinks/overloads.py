"""Overloads that differ in form only: what is known of one is known of the other.

``pow_.Scalar`` is ``pow.Tensor_Scalar`` written over its first argument. A rule or a class of the
functional form speaks for the in-place form, which is found by its arguments, not by a list.
"""

from __future__ import annotations

from typing import Any

import torch


def functional_form(func: Any) -> str | None:
    """The dispatcher's name of the form of an in-place operation that returns a new tensor."""
    schema = getattr(func, "_schema", None)
    namespace, _, name = str(getattr(schema, "name", "")).partition("::")
    if namespace != "aten" or not name.endswith("_") or name.startswith("_foreach"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    if packet is None:
        return None
    wanted = _arguments(func)
    for overload in packet.overloads():
        other = getattr(packet, overload)
        if _arguments(other) == wanted and not other._schema.is_mutable:
            return f"aten::{name[:-1]}.{overload}"
    return None


def _arguments(func: Any) -> list[tuple[str, str]]:
    return [(a.name, str(a.type)) for a in func._schema.arguments]
