"""One pass over a trace: how every tensor depends on the leaves, and what stands in the way."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Origin, Ref, Trace, filled, input_slots
from clarke.kinks import OpKind, Registry
from clarke.kinks.choices import ReductionRule
from clarke.kinks.facts import words
from clarke.kinks.lows import SAFE_WHERE_POSITIVE, Low, lower_bound, power_is_analytic
from clarke.kinks.regions import RegionRule
from clarke.kinks.singular import SingularRule
from clarke.kinks.smooth import POLE_ARGUMENTS, POLES, why_not
from clarke.kinks.windows import PoolRule
from clarke.theorems.affine import (
    LARGEST_BIAS,
    State,
    added_forms,
    is_dead,
    known_dead,
)
from clarke.theorems.proxies import elementwise_result, is_pair, kink_points
from clarke.theorems.step import Step
from clarke.theorems.structure import Context, Fault, KinkSite, Leaf, LostBias, Structure
from clarke.theorems.text import place
from clarke.theorems.transfer import leaf_state, transfer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Known only for some values of differentiable arguments: a run says nothing about all of them.
_VALUES = ("softplus", "triangular", "lu_solve")
_WRITES = words("index_put _index_put_impl _unsafe_index_put index_copy scatter put scatter_reduce")


def walk(
    trace: Trace,
    registry: Registry,
    variables: Sequence[int],
    names: Mapping[int, str] | None = None,
    context: Context | None = None,
) -> Structure:
    """Analyse a trace.

    Args:
        trace: What ran.
        registry: The rules.
        variables: Slots of the leaves that are differentiated with respect to.
        names: Names of parameters, frozen ones included, by slot.
        context: What is known of constants and inputs; by default that all constants are fixed.
    """
    lowered, context = registry.lowered(trace), context or Context()
    found = _Walk(lowered, registry, frozenset(variables), names or {}, context)
    if context.blind and lowered.ops:
        why = "the model takes its inputs out of torch, or refuses such that require gradients"
        found.moving.append(Fault("input", lowered.ops[0].location, why))
    return found.run()


class _Walk:
    def __init__(
        self,
        trace: Trace,
        registry: Registry,
        variables: frozenset[int],
        names: Mapping[int, str],
        context: Context,
    ) -> None:
        self.trace = trace
        self.deadline = context.deadline
        self.registry = registry
        self.leaves: list[Leaf] = []
        self.states: dict[int, State] = {}
        self.meta: dict[int, torch.Tensor] = {}
        self.roots: dict[int, int] = {}
        self.sites: list[KinkSite] = []
        self.pools: list[Fault] = []
        self.rough: list[Fault] = []
        self.moving: list[Fault] = []
        self.reused: list[Fault] = []
        self.lost: list[LostBias] = []
        self.assumptions: list[str] = list(context.assumptions)
        self.variables = 0
        by_tensor: dict[int, int] = {}
        for slot, e in sorted(trace.externals.items()):
            tensor = e.tensor.detach()
            if e.snapshot is not None:
                tensor = e.snapshot.as_strided(
                    tensor.size(), tensor.stride(), tensor.storage_offset()
                )
            self.meta[slot] = _meta(tensor)
            self.roots[slot] = -1 - e.storage
            if e.origin in (Origin.CUSTOM_FUNCTION, Origin.UNSEEN):
                why = "a custom autograd.Function" if e.name else "computed out of sight"
                self.moving.append(Fault(e.name or "?", e.location, why))
            if e.stopped and not context.cuts_inputs_only:
                self.moving.append(Fault("detach", e.location, "a detached value is used"))
            if slot in variables or e.origin is Origin.LEAF or slot in names:
                number = by_tensor.setdefault(e.storage, len(self.leaves))
                self.variables |= (slot in variables) << number
                if number == len(self.leaves):
                    name = names.get(slot, f"leaf of shape {tuple(tensor.shape)}")
                    self.leaves.append(Leaf(slot, name, slot in variables, tuple(tensor.shape)))
                    small = tensor.numel() <= LARGEST_BIAS
                    self.states[slot] = leaf_state(tensor, number, small=small)
                else:  # another view of the same memory: it moves with the first
                    self.states[slot] = State(tensor.shape, 1 << number, direct=1 << number)
            else:
                known = not e.stopped and (context.fixed is None or slot in context.fixed)
                self.states[slot] = State(tensor.shape, data=tensor if known else None)

    def run(self) -> Structure:
        for read in self.trace.scalar_reads:
            self.moving.append(Fault("item", read.location, "a value goes into Python"))
        for position, op in enumerate(self.trace.ops):
            self.deadline.ask("reading the structure: {} of {}", position, len(self.trace.ops))
            self._step(position, op)
        for a in self.trace.applied:
            self.moving.append(Fault(a.name, a.location, "a custom autograd.Function"))
        return Structure(
            self.trace,
            tuple(self.leaves),
            tuple(self.sites),
            tuple(self.pools),
            tuple(dict.fromkeys(self.rough)),
            tuple(dict.fromkeys(self.moving)),
            tuple(dict.fromkeys(self.reused)),
            tuple(self.lost),
            tuple(dict.fromkeys(self.assumptions)),
            MappingProxyType(self.states),
            self.deadline,
        )

    # ------------------------------------------------------------------ one operation

    def _step(self, position: int, op: OpRecord) -> None:
        metas = self._infer(op)
        step = Step(op, self.states, [None if m is None else m.shape for m in metas])
        reads = step.reads()
        if op.hidden_write:
            why = "changes a differentiated tensor while gradients are off"
            self.moving.append(Fault(op.shown, op.location, why))
        self._note_reuse(op, reads)
        out = transfer(step)
        depends = 0
        for s in reads:
            depends |= s.depends
        if depends & self.variables:
            known = self.registry.judge(op, self.trace)
            if known.kind is OpKind.RULED:
                out = self._ruled(position, op, known.rule, step, out)
            elif (
                _depends_on_values(op)
                or known.kind is OpKind.UNKNOWN
                or (known.kind is OpKind.RANDOM and op.short_name != "native_dropout")
            ):
                self._not_analytic(op, known.kind)
        low = lower_bound(op, [r.low for r in reads])
        if out and low is not Low.UNKNOWN:
            out = [replace(s, low=low) for s in out]
        self._note_assumptions(op, step, reads)
        self._note_lost(position, op, reads, out)
        self._bind(op, out, metas, depends)

    def _not_analytic(self, op: OpRecord, kind: OpKind) -> None:
        why = "random" if kind is OpKind.RANDOM else why_not(op.name) or "not known to be analytic"
        self.rough.append(Fault(op.shown, op.location, why))

    def _ruled(
        self, position: int, op: OpRecord, rule: Any, step: Step, out: list[State]
    ) -> list[State]:
        if isinstance(rule, SingularRule):
            source = step.state(op.args[0])
            name = op.short_name.removesuffix("_")
            safe = name in SAFE_WHERE_POSITIVE and source.low is Low.POSITIVE
            if name == "pow":
                safe = power_is_analytic(op) or (
                    source.low is Low.POSITIVE and not isinstance(op.args[1], Ref)
                )
            if not safe:
                slope = f"its slope is infinite or undefined somewhere ({rule.hazard.value})"
                why = why_not(op.name) or slope
                self.rough.append(Fault(op.shown, op.location, why))
            return out
        if rule.doubtful:
            why = "autograd's formula for it holds for some programs only"
            self.rough.append(Fault(op.shown, op.location, why))
            return out
        if isinstance(rule, RegionRule):
            switching = self._switching(op, step)
            dtype = self._dtype(op)
            site = KinkSite(position, op, switching, kink_points(op, rule, dtype))
            if site.points == ():
                return out  # its pieces meet smoothly
            if site.points is not None and any(p.jump for p in site.points):
                self.rough.append(Fault(op.shown, op.location, "a step: its value jumps"))
            self.sites.append(site)
            return [self._after(s, switching, len(self.sites) - 1) for s in out]
        if isinstance(rule, (PoolRule, ReductionRule)):
            if not _trivial(op, step, out):
                self.pools.append(Fault(op.shown, op.location, "a maximum over several elements"))
            return [replace(s, through=s.depends, direct=0, product=None) for s in out]
        self.rough.append(Fault(op.shown, op.location, "its result jumps as a function of values"))
        return [replace(s, through=s.depends, direct=0) for s in out]

    @staticmethod
    def _after(state: State, switching: State, number: int) -> State:
        dead = None
        if switching.shape == state.shape and switching.depends == state.depends:
            dead = switching.dead
        return replace(
            state,
            through=state.depends,
            direct=0,
            kinks=state.kinks | 1 << number,
            forms=MappingProxyType({}),
            dead=dead,
            product=None,
        )

    def _dtype(self, op: OpRecord) -> torch.dtype:
        slot: int | None = next(iter(input_slots(op)), None)
        dtype = self.trace.slot_dtypes.get(slot) if slot is not None else None
        return dtype if dtype is not None and dtype.is_floating_point else torch.float64

    def _switching(self, op: OpRecord, step: Step) -> State:
        first = step.state(op.args[0])
        if not is_pair(op):
            others = 0
            for argument in (*op.args[1:], *op.kwargs.values()):
                others |= step.state(argument).depends if isinstance(argument, Ref) else 0
            # A learnt slope (prelu) does not move the kink at zero; where it is dead it is null.
            others = 0 if _is_prelu(op) else others
            return _spread(first, transfer(step)[0].shape, others)
        second = step.state(op.args[1])
        state = transfer(step)[0]
        if first.shape is None or second.shape is None or state.shape is None:
            return state
        return replace(
            state,
            forms=MappingProxyType(added_forms(first, second, state.shape, -1.0)),
            dead=known_dead(is_dead(first, state.shape) & is_dead(second, state.shape)),
        )

    # ------------------------------------------------------------------ shapes, memory

    def _infer(self, op: OpRecord) -> list[torch.Tensor | None]:
        """Results on the meta device: shapes and strides without values."""

        def known(slot: int) -> torch.Tensor:
            found = self.meta.get(slot)
            if found is None:
                raise RuntimeError("unknown shape")
            return found

        def meta(value: Any) -> Any:
            if isinstance(value, torch.device):
                return torch.device("meta")
            return filled(value, known)

        if (plain := elementwise_result(op, [*map(self.meta.get, input_slots(op))])) is not None:
            return [plain]
        try:
            with torch.no_grad():
                found = op.func(*map(meta, op.args), **{k: meta(v) for k, v in op.kwargs.items()})
        except Exception:  # noqa: BLE001 - an operation without a meta form has no known shape
            return [None] * len(op.outputs)
        flat = list(found) if isinstance(found, (list, tuple)) else [found]
        return [t if isinstance(t, torch.Tensor) and t.is_meta else None for t in flat]

    def _bind(
        self, op: OpRecord, out: list[State], metas: list[torch.Tensor | None], depends: int
    ) -> None:
        schema = op.func._schema
        written: set[int] = set()
        viewed: int | None = None
        for i, argument in enumerate(schema.arguments):
            value = op.args[i] if i < len(op.args) else op.kwargs.get(argument.name)
            info = argument.alias_info
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if not isinstance(item, Ref) or info is None:
                    continue
                if info.is_write:
                    written.add(item.slot)
                else:
                    viewed = item.slot
        results = {s for s in op.outputs if s is not None}
        for target in written:
            root = self.roots.get(target, target)
            for other, state in list(self.states.items()):
                if self.roots.get(other, other) == root and other not in results:
                    # Memory seen through another tensor: what it holds now is not known.
                    mixed = state.depends | depends
                    self.states[other] = State(state.shape, mixed, mixed, mixed)
        for slot, state, meta in zip(op.outputs, out, metas, strict=False):
            if slot is None:
                continue
            self.states[slot] = state
            if meta is not None:
                self.meta[slot] = meta
            if slot not in written:
                self.roots[slot] = slot if viewed is None else self.roots.get(viewed, viewed)

    # ------------------------------------------------------------------ notes

    def _note_reuse(self, op: OpRecord, reads: list[State]) -> None:
        """A parameter meets something that depends on it by way of a kink."""
        for state in reads:
            if state.leaf < 0 or not self.variables >> state.leaf & 1:
                continue
            if any(s is not state and s.through >> state.leaf & 1 for s in reads):
                name = self.leaves[state.leaf].name
                why = f"`{name}` is used again after a kink that depends on it"
                self.reused.append(Fault(op.shown, op.location, why))

    def _note_assumptions(self, op: OpRecord, step: Step, reads: list[State]) -> None:
        name = op.short_name.removesuffix("_")
        carried = any(s.forms for s in reads)
        by_constant = any(s.constant and s.data is not None for s in reads)
        at, assume = place(op.location), self.assumptions.append
        if carried and by_constant and name in ("mul", "div", "index_select"):
            assume(f"the constant at {at} stays as it is")
        if carried and name in ("where", "masked_fill"):
            assume(f"the mask at {at} stays as it is")
        if op.name in POLES and name in POLE_ARGUMENTS:
            below = step.state(op.args[POLE_ARGUMENTS[name]])
            if below.depends & self.variables and below.low is not Low.POSITIVE:
                assume(f"values stay finite at {at}, which excludes {POLES[op.name]}")
        if name in _WRITES:
            assume(f"the places written at {at} stay as they are")
        if name == "embedding" and self.registry.known(op.func).kind is OpKind.DEPENDS:
            padding = op.args[2] if len(op.args) > 2 else -1
            if isinstance(padding, int) and padding >= 0:
                assume(f"no index at {at} equals padding_idx {padding}")

    def _note_lost(self, position: int, op: OpRecord, reads: list[State], out: list[State]) -> None:
        sums = op.short_name.removesuffix("_") in ("add", "sub", "rsub")
        before = {
            leaf
            for s in reads
            for leaf, form in s.forms.items()
            if form.added or (sums and s.leaf >= 0)
        }
        after = {leaf for s in out for leaf in s.forms}
        self.lost += [LostBias(leaf, op, position) for leaf in sorted(before - after)]


def _depends_on_values(op: OpRecord) -> bool:
    """Whether an operation is analytic at some values only, for which a run can speak alone."""
    return any(word in op.short_name for word in _VALUES)


def _is_prelu(op: OpRecord) -> bool:
    return op.short_name in ("_prelu_kernel", "prelu")


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is not torch.strided:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")


def _trivial(op: OpRecord, step: Step, out: list[State]) -> bool:
    """Whether every maximum is over one element."""
    name = op.short_name
    if name.startswith("max_pool"):
        kernel = op.args[1] if len(op.args) > 1 else op.kwargs.get("kernel_size")
        sizes = (kernel,) if isinstance(kernel, int) else tuple(kernel or (2,))
        return all(k == 1 for k in sizes)
    source = step.state(op.args[0])
    if source.shape is None or not out or out[0].shape is None:
        return False
    return source.shape.numel() == out[0].shape.numel() and not name.startswith("adaptive")


def _spread(first: State, shape: torch.Size | None, others: int) -> State:
    """The state of an operation's first argument in the shape of its result.

    Args:
        first: The first argument, less which the others are compared.
        shape: Of the result; a bound of more dimensions broadcasts the argument.
        others: The leaves on which the other arguments depend: affine in them it is no more.
    """
    depends = first.depends | others
    if first.shape == shape and not others:
        return first
    if shape is None:
        return replace(first, shape=None, depends=depends, forms=MappingProxyType({}), dead=None)
    forms = {
        leaf: replace(f, coef=f.coef.expand(shape), index=f.index.expand(shape))
        for leaf, f in first.forms.items()
        if not others >> leaf & 1
    }
    dead = known_dead(is_dead(first, shape)) if first.shape is not None and not others else None
    return replace(first, shape=shape, depends=depends, forms=MappingProxyType(forms), dead=dead)
