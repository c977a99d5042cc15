"""Theorems in files: structure and hypotheses, from which they follow again.

A theorem speaks of all inputs and parameters. Its file holds the recorded operations and what is
known of the record besides, and of the parameters their shapes alone. Whoever checks it derives the
theorem again; what the record is a record of (that the model ran so, that no hook changes a
gradient) is believed.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Origin, refilled
from clarke.decide.recomputed import Defect
from clarke.errors import ProofError
from clarke.kinks import default_registry
from clarke.proof.checked import fields, items, text, truth, whole
from clarke.proof.sizes import first_run
from clarke.theorems import Context, explain_trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import Trace
    from clarke.deadline import Deadline
    from clarke.theorems import Explanation

KIND = "theorem"
NO_POINT = MappingProxyType({"missing": "a theorem, which is about all points"})


def theorem_claim(found: Explanation, context: Context) -> dict[str, Any]:
    """A theorem's own part of a file."""
    fixed = None if context.fixed is None else sorted(context.fixed)
    return {
        "kind": KIND,
        "fixed": fixed,
        "cuts_inputs_only": context.cuts_inputs_only,
        "blind": context.blind,
        "assumptions": list(found.assumptions),
        "given": list(context.assumptions),
        "says": _said(found),
    }


def _said(found: Explanation) -> dict[str, Any]:
    return {
        "theorem": None if found.theorem is None else found.theorem.name,
        "strength": None if found.strength is None else found.strength.name,
        "hypotheses": {h.condition.name: h.holds for h in found.hypotheses},
    }


def without_values(trace: Trace) -> Trace:
    """The same record with ones for the values of leaves, of which only shapes are kept."""
    bare = {
        slot: replace(e, tensor=_ones_like(e.tensor))
        if e.origin is Origin.LEAF and e.snapshot is None
        else e
        for slot, e in trace.externals.items()
    }
    return replace(trace, externals=MappingProxyType(bare))


def _ones_like(tensor: torch.Tensor) -> torch.Tensor:
    """Ones that take the memory of a single one."""
    one = torch.ones(min(tensor.numel(), 1), dtype=tensor.dtype)
    return one.expand(tensor.shape) if tensor.numel() > 1 else one.reshape(tensor.shape)


def check_theorem(
    trace: Trace, variables: Sequence[int], claim: Mapping[str, Any], deadline: Deadline
) -> None:
    """Derive a theorem again from what a file holds.

    Raises:
        ProofError: Something is out of place, or the operations cannot run.
        Defect: Something else follows.
        OutOfTimeError: The time limit ended.
    """
    keys = {"kind", "fixed", "cuts_inputs_only", "blind", "assumptions", "given", "says"}
    fields(dict(claim), keys, "claim")
    fixed = claim["fixed"]
    context = Context(
        None if fixed is None else frozenset(whole(s, "fixed") for s in items(fixed, "fixed")),
        cuts_inputs_only=truth(claim["cuts_inputs_only"]),
        blind=truth(claim["blind"]),
        assumptions=tuple(text(a) for a in items(claim["given"], "given")),
        deadline=deadline,
    )
    registry = default_registry()
    try:
        full = refilled(first_run(trace, deadline), registry.keeps, deadline)
        found = explain_trace(full, registry, variables, None, context)
    except (LookupError, ValueError, RuntimeError) as error:
        raise Defect("the structure is none of which theorems speak") from error
    again = theorem_claim(found, context)
    if again != claim:
        parts = ", ".join(k for k in sorted(again) if again[k] != claim[k])
        raise Defect(f"from its operations follows something else than it says ({parts})")


def follows(
    trace: Trace, variables: Sequence[int], claim: Mapping[str, Any], deadline: Deadline
) -> bool:
    """Whether a theorem can be derived from a record as a file would hold it."""
    try:
        check_theorem(trace, variables, claim, deadline)
    except (Defect, ProofError):
        return False
    return True
