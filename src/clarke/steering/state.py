"""Tensors of one replay, by slot, and what becomes of them at a kink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Ref, filled
from clarke.errors import ReplayError
from clarke.kinks import Call
from clarke.kinks.model import UnsteeredRule
from clarke.steering.adapt import adapted
from clarke.steering.analysis import Site
from clarke.steering.masks import MaskTracker
from clarke.steering.nudges import Nudges, carries_slopes
from clarke.steering.uses import MaskUse, blended
from clarke.torch_private import make_dual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.steering.program import Program


@dataclass(frozen=True, eq=False)
class Probe:
    """What a replay saw at one site.

    Attributes:
        call: The operation with the replay's tensors (differentiable).
        candidates: (M,) values of the candidates at the touched kinks.
        switching: Switching functions at the touched kinks.
        choice: (K,) the candidate that was selected, or None in a natural or mixed replay.
    """

    call: Call
    candidates: torch.Tensor
    switching: torch.Tensor
    choice: torch.Tensor | None

    @classmethod
    def of(cls, site: Site, call: Call, choice: torch.Tensor | None) -> Probe:
        """Look at a site."""
        candidates, switching = site.rule.candidates, site.rule.switching
        return cls(call, candidates(call, site.touch), switching(call, site.touch), choice)


def cannot_repeat(op: OpRecord, dtype: torch.dtype, error: Exception) -> ReplayError:
    """What an operation says that does not run in a replay's dtype."""
    return ReplayError(
        f"{op.shown} at {op.location} cannot be run again in {dtype}: {str(error).splitlines()[0]}"
    )


def _true_shares(site: Site, weights: torch.Tensor) -> torch.Tensor:
    """(K,) the weight of a comparison's piece True at each of its kinks."""
    touch = site.touch
    share = weights * (touch.members == 1).to(weights.dtype)
    return torch.zeros(touch.count, dtype=weights.dtype).index_add(0, touch.owner, share)


def _base_of(tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor is a view of; itself, if it is none."""
    base: torch.Tensor | None = tensor._base  # noqa: SLF001 - has no public name
    return tensor if base is None else base


class State:
    """Tensors of one replay, by slot."""

    def __init__(
        self,
        program: Program,
        point: Sequence[torch.Tensor] | None,
        tangents: Sequence[torch.Tensor] | None,
        nudges: Nudges | None,
        *,
        grad: bool,
    ) -> None:
        self.nudges = nudges
        # By touched kink: the weight of a comparison's piece True, and whether the run mixes both.
        self.shares = torch.zeros(program.analysis.count, dtype=torch.float64)
        self.mixed = torch.zeros(program.analysis.count, dtype=torch.bool)
        self.trace = program.analysis.trace
        self.dtype = program.dtype
        self.env: dict[int, torch.Tensor] = {}
        self.memory: dict[int, torch.Tensor] = {}
        self._shared = program.analysis.shared
        self.masks = MaskTracker(self._shared, self.trace.output, program.dtype)
        leaves = []
        for i, (slot, value) in enumerate(
            zip(program.variables, point or program.point, strict=True)
        ):
            program.deadline.ask("copying {} variables", len(program.variables))
            leaf = value.detach().to(self.dtype).clone().requires_grad_(grad)
            leaves.append(leaf)
            self.env[slot] = leaf if tangents is None else make_dual(leaf, tangents[i])
        self.leaves = tuple(leaves)

    def call(self, op: OpRecord) -> Call:
        """An operation with the replay's tensors."""
        if op.within is not None and op.func._schema.name.endswith("_"):
            self._set_apart(op)
        args = tuple(self.resolve(a) for a in op.args)
        return Call(op.func, args, {k: self.resolve(v) for k, v in op.kwargs.items()})

    def _set_apart(self, op: OpRecord) -> None:
        """Give what an operation is about to write to, and all in its memory, memory of its own.

        No graph keeps what a custom Function's forward overwrites; a replay's does.
        """
        first = op.args[0] if op.args else None
        if not isinstance(first, Ref):
            return
        target = self._tensor(first.slot)
        if first.slot not in self._shared:
            self.env[first.slot] = target.clone()
            return
        memory = target.untyped_storage()._cdata
        base = _base_of(target)
        fresh = base.clone()
        start = base.storage_offset()

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            if tensor is base:
                return fresh
            own = fresh if _base_of(tensor) is base else fresh.detach()
            return own.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset() - start)

        for known in (self.env, self.memory):
            for slot, tensor in known.items():
                strided = tensor.layout is torch.strided
                if strided and tensor.untyped_storage()._cdata == memory:
                    known[slot] = moved(tensor)

    def resolve(self, value: Any) -> Any:
        """An argument, with this replay's tensors in place of references."""
        return filled(value, self._tensor)

    def _tensor(self, slot: int) -> torch.Tensor:
        found = self.env.get(slot)
        return self._external(slot) if found is None else found

    def _external(self, slot: int) -> torch.Tensor:
        external = self.trace.externals.get(slot)
        if external is None:
            raise ReplayError(
                "A tensor of the recorded program is missing; its graph may have been freed. "
                "Call backward with retain_graph=True or run the forward pass again."
            )
        tensor = external.tensor.detach()
        if external.snapshot is not None:
            flat = self.memory.get(external.storage)
            if flat is None:
                flat = self.memory[external.storage] = self._cast(external.snapshot.clone())
            value = flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        else:
            value = self._cast(tensor)
        self.env[slot] = value
        return value

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def execute(self, op: OpRecord, call: Call) -> Any:
        """Run an operation as recorded, with floating point dtypes mapped to the replay's."""
        func, args, kwargs = adapted(op, call, self.dtype)
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError, IndexError, ValueError) as error:
            raise cannot_repeat(op, self.dtype, error) from error

    @staticmethod
    def store_in_place(op: OpRecord, call: Call, out: Any) -> Any:
        """For an in-place operation, write the forced values over its first argument."""
        if op.func._schema.name.endswith("_") and isinstance(out, torch.Tensor):
            target: torch.Tensor = call.args[0]
            if out is not target:
                target.copy_(out)
            return target
        return out

    def bind(self, op: OpRecord, call: Call, out: Any, site: Site | None, *, forced: bool) -> None:
        """Take the results of an operation, and where forced follow the masks in them."""
        flat = out if isinstance(out, (list, tuple)) else (out,)
        for slot, value in zip(op.outputs, flat, strict=False):
            if slot is not None and isinstance(value, torch.Tensor):
                self.env[slot] = value
        if forced:
            seen = len(self.masks.uses)
            touch, first = (site.touch, site.first) if site else (None, 0)
            steered = site is not None and (
                site.touch.count > 0 or not isinstance(site.rule, UnsteeredRule)
            )
            self.masks.observe(op, call, flat, touch, first, steered=steered)
            for use in self.masks.uses[seen:]:
                self._blend(use)
                self._nudge_use(use)

    def share(self, site: Site, weights: torch.Tensor, *, mixed: bool) -> None:
        """Note the weights with which a comparison's or sign's pieces run."""
        kinks = slice(site.first, site.first + site.touch.count)
        self.shares[kinks] = _true_shares(site, weights)
        self.mixed[kinks] = mixed

    def _blend(self, use: MaskUse) -> None:
        """Mix both sides of a tied comparison where the run mixes its pieces."""
        slot = use.op.outputs[0] if use.op.outputs else None
        unmixable = use.table is None and use.present is None
        if unmixable or slot is None or not bool(self.mixed[use.kink].any()):
            return
        mixed = blended(use, self.env[slot], self.shares)
        if use.op.short_name.endswith("_"):
            self.env[slot].copy_(mixed)
        else:
            self.env[slot] = mixed

    def nudged(self, site: Site, out: Any) -> Any:
        """The forced output with zero leaves at the touched kinks."""
        touch = site.touch
        if self.nudges is None or touch.count == 0:
            return out
        parts = list(out) if isinstance(out, (tuple, list)) else [out]
        floating = [i for i, p in enumerate(parts) if carries_slopes(p)]
        if site.rule.by_value and not floating:
            # A truth value has no adjoint; what it selects has, where it is used.
            return out
        if len(floating) == 1 and touch.base.numel() == parts[floating[0]].numel():
            kinks = site.first + torch.arange(touch.count)
            parts[floating[0]] = self.nudges.add(parts[floating[0]], touch.elements, kinks)
        else:
            # Singular points are not always elements of the output: watch all of it.
            self.nudges.spread.append((site.first, touch.count))
            for i in floating:
                elements = torch.arange(parts[i].numel())
                kinks = torch.full_like(elements, site.first)
                parts[i] = self.nudges.add(parts[i], elements, kinks)
        return tuple(parts) if isinstance(out, (tuple, list)) else parts[0]

    def _nudge_use(self, use: MaskUse) -> None:
        slot = use.op.outputs[0] if use.op.outputs else None
        if self.nudges is None or use.elements is None or slot is None:
            return
        found = self.nudges.add(self.env[slot], use.elements, use.kink, use=True)
        if use.op.short_name.endswith("_"):
            self.env[slot].copy_(found)
        else:
            self.env[slot] = found
