"""A recorded program that can be run again: at other points, with forced pieces, along tangents."""

from __future__ import annotations

import copy
import importlib
import warnings
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import External, OpRecord, Origin, Ref, Trace, input_slots, refuse_missing
from clarke.deadline import UNLIMITED, Deadline, within_memory
from clarke.errors import ModifiedSinceError, ReplayError
from clarke.kinks import Call, KinkRule, OpKind, Registry, Touch
from clarke.kinks.lows import Lows
from clarke.kinks.model import UnsteeredRule
from clarke.kinks.steps import ComparisonRule
from clarke.steering.adapt import adapted, can_replay_random
from clarke.steering.functions import Functions
from clarke.steering.masks import MaskTracker, MaskUse, blended
from clarke.steering.noise import Errors, Noise
from clarke.steering.nudges import Nudges, carries_slopes
from clarke.steering.pace import Pace
from clarke.steering.roundoff import Roundoffs
from clarke.steering.still import Still
from clarke.torch_private import make_dual

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Pieces(Enum):
    """How a replay treats operations with kinks."""

    NATURAL = "as PyTorch evaluates them at the point of the replay"
    TRUE = "natural, with a true derivative where PyTorch's own formula is in doubt"
    HELD = "as PyTorch evaluates recorded values at touched kinks, the recorded piece elsewhere"
    FORCED = "the piece that the selection names, everywhere"


@dataclass(frozen=True, eq=False)
class Site:
    """An operation with a rule: its touched kinks are numbered ``first .. first + touch.count``."""

    position: int
    rule: KinkRule
    touch: Touch
    first: int


@dataclass(frozen=True, eq=False)
class Analysis:
    """A trace with its kinks found.

    Attributes:
        trace: What ran, fused operations written as their parts.
        sites: Operations with rules on the differentiable path, in evaluation order.
        unknown: Operations that nobody knows and that the result depends on.
        count: Number of touched kinks in all sites.
        recorded: What ran, as it was recorded.
    """

    trace: Trace
    sites: Mapping[int, Site]
    unknown: tuple[OpRecord, ...]
    count: int
    recorded: Trace

    @cached_property
    def shared(self) -> frozenset[int]:
        """Slots whose memory may show in another slot as well."""
        found = {s for s, e in self.trace.externals.items() if e.snapshot is not None}
        for op in self.trace.ops:
            given = [a.alias_info for a in op.func._schema.arguments]
            if any(a is not None and not a.is_write for a in given):  # a view
                found.update(input_slots(op))
                found.update(o for o in op.outputs if o is not None)
        return frozenset(found)

    def ordered(self) -> tuple[Site, ...]:
        """The sites in evaluation order."""
        return tuple(self.sites[p] for p in sorted(self.sites))

    @cached_property
    def doubtful(self) -> Mapping[int, Site]:
        """Operations whose own derivative formula is in doubt, by number of their record."""
        found = {s.touch.op.index: s for s in self.sites.values() if s.rule.doubtful}
        return MappingProxyType(found)

    def site_of(self, kink: int) -> Site:
        """The site to which a kink number belongs."""
        for site in self.sites.values():
            if site.first <= kink < site.first + site.touch.count:
                return site
        raise IndexError(kink)


@within_memory
def analyse(trace: Trace, registry: Registry, deadline: Deadline = UNLIMITED) -> Analysis:
    """Find the touched kinks of every operation of a trace.

    Raises:
        ModifiedSinceError: Memory of what the trace holds is gone.
    """
    refuse_missing(trace)
    recorded, trace = trace, registry.lowered(trace)
    sites: dict[int, Site] = {}
    unknown: list[OpRecord] = []
    count = 0
    still, lows = Still(trace), Lows(trace)
    for position, op in enumerate(trace.ops):
        deadline.ask("finding touched kinks: operation {} of {}", position, len(trace.ops))
        if op.hidden_write:
            continue
        lows.follow(op)
        if not (op.differentiated or op.reads_stopped):
            still.follow(op)
            continue  # computed from masks, integers and constants: locally constant
        known = registry.judge(op, trace)
        unmoved = still.follow(op)
        if known.kind is OpKind.RULED and known.rule is not None:
            if not any(v.is_floating_point() or v.is_complex() for v in op.kept.values()):
                continue  # integers and masks: locally constant
            touch = known.rule.find(op)
            if unmoved or (touch.count and lows.is_tame_power(op)):
                touch = touch.only(torch.zeros(touch.count, dtype=torch.bool))
            if touch.count == 0:
                still.settle(op, all_results=known.rule.is_level())
            sites[position] = Site(position, known.rule, touch, count)
            count += touch.count
        elif not unmoved and (
            known.kind is OpKind.UNKNOWN
            or (known.kind is OpKind.RANDOM and op.differentiated and not can_replay_random(op))
        ):
            unknown.append(op)
    return Analysis(trace, sites, tuple(unknown), count, recorded)


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


@dataclass(frozen=True, eq=False)
class Run:
    """The outcome of one replay.

    Attributes:
        output: The result.
        probes: What was seen at sites with touched kinks, by position.
        mask_uses: Where tied comparisons reach differentiable values.
        leaves: The variables.
        nudges: Zero leaves at the touched kinks, if asked for.
        tensors: Every tensor of the replay, by slot (its last state, for in-place operations).
    """

    output: torch.Tensor
    probes: Mapping[int, Probe]
    mask_uses: tuple[MaskUse, ...]
    leaves: tuple[torch.Tensor, ...]
    nudges: Nudges | None
    tensors: Mapping[int, torch.Tensor]


# Operations whose forward-mode rules torch has in Python, where loading them costs a second.
_RULES_OF_PYTHON = frozenset({"trace", "log_sigmoid_forward"})


@lru_cache(maxsize=1)
def _load_forward_rules() -> None:
    """Load torch's forward-mode rules, which warn of torch's own affairs while they load.

    Torch would load them on first use, inside of the user's program and warning filters.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


class Program:
    """Runs a trace again in float64.

    Args:
        analysis: The trace and its kinks.
        variables: External slots to differentiate with respect to, in order.
        dtype: Floating point type of the replay.
        deadline: Asked at every operation of a replay, and by whoever works with the program.
    """

    def __init__(
        self,
        analysis: Analysis,
        variables: Sequence[int],
        dtype: torch.dtype = torch.float64,
        deadline: Deadline = UNLIMITED,
    ) -> None:
        self.analysis = analysis
        self.variables = tuple(variables)
        self.dtype = dtype
        self.deadline = deadline
        trace = analysis.trace
        if any(op.short_name in _RULES_OF_PYTHON for op in trace.ops):
            with deadline.paused():
                _load_forward_rules()
        refuse_missing(analysis.recorded)
        for e in trace.externals.values():
            _refuse_changed(e)
        self.point = tuple(
            trace.externals[s].tensor.detach().to(dtype).clone() for s in self.variables
        )

    def within(self, deadline: Deadline) -> Program:
        """The same program under another deadline."""
        other = copy.copy(self)
        other.deadline = deadline
        return other

    @cached_property
    def _sizes(self) -> dict[int, int]:
        """Elements of every tensor of the program."""
        return {s: t.numel() for s, t in self.run(grad=False).tensors.items()}

    @cached_property
    def _known_roundoffs(self) -> dict[tuple[Trace, bool], Roundoffs]:
        return {}

    def _roundoffs(self, trace: Trace, errors: Errors) -> Roundoffs:
        """Sizes of roundings, found once for all replays."""
        key = trace, errors.double
        found = self._known_roundoffs.get(key)
        if found is None:
            found = Roundoffs(trace, self._sizes, double=errors.double)
            self._known_roundoffs[key] = found
        return found

    def run(
        self,
        point: Sequence[torch.Tensor] | None = None,
        *,
        pieces: Pieces = Pieces.FORCED,
        choices: Mapping[int, torch.Tensor] | None = None,
        weights: Mapping[int, torch.Tensor] | None = None,
        chooser: Callable[[Site, Probe], torch.Tensor] | None = None,
        tangents: Sequence[torch.Tensor] | None = None,
        probe: bool = False,
        nudge: bool | Nudges = False,
        errors: Errors | None = None,
        functions: bool = False,
        grad: bool = True,
    ) -> Run:
        """Run the program.

        Args:
            point: Values of the variables; None for the recorded ones.
            pieces: Natural or forced pieces.
            choices: Forced candidates by site position, (K,) each; default AD's.
            weights: Mixtures of candidates by site position, (M,) each, in place of a choice.
            chooser: Picks the candidates of a site from its probe, in evaluation order.
            tangents: Direction for forward-mode differentiation; the caller must be inside
                `torch_private.forward_mode`.
            probe: Collect candidates and switching functions at the touched kinks.
            nudge: Add zero leaves at the touched kinks, for adjoints; or those to add.
            errors: Make random errors in values and adjoints, of the size of roundings.
            functions: Run custom Functions as they are, with their own backward; with natural
                pieces only.
            grad: Build an autograd graph.
        """
        nudges = nudge if isinstance(nudge, Nudges) else Nudges(self.dtype) if nudge else None
        state = _State(self, point, tangents, nudges, grad=grad)
        probes: dict[int, Probe] = {}
        with torch.set_grad_enabled(grad):
            forced = pieces in (Pieces.FORCED, Pieces.HELD) or probe
            trace = self.analysis.trace if forced else self.analysis.recorded
            pace = Pace(self.deadline, trace.ops, state.env)
            called = Functions(trace, self.dtype) if functions else None
            noise = None if errors is None else Noise(errors, self._roundoffs(trace, errors))
            for position, op in enumerate(trace.ops):
                pace.at(position)
                if called is not None and called.take(op, state.resolve, state.env):
                    continue
                if op.hidden_write:
                    raise ReplayError(
                        f"{op.shown} at {op.location} changed a differentiated tensor while "
                        "gradients were switched off."
                    )
                call = Call(
                    op.func,
                    tuple(state.resolve(a) for a in op.args),
                    {k: state.resolve(v) for k, v in op.kwargs.items()},
                )
                if noise is not None:
                    call = noise.of(op, call)
                site = self.analysis.sites.get(position) if forced else None
                if pieces is Pieces.TRUE and op.index in self.analysis.doubtful:
                    own = self.analysis.doubtful[op.index]
                    out = self._forced(own, call, None, None, None, probes, state, probe=False)
                    state.bind(op, call, out, None, forced=False)
                    continue
                # Before an in-place operation overwrites it.
                read = state.masks.before(op, call) if pieces is Pieces.FORCED else call
                if site is not None and pieces is Pieces.HELD:
                    out = state.store_in_place(op, call, self._held(site, call, state))
                elif site is None or pieces in (Pieces.NATURAL, Pieces.TRUE):
                    out = state.execute(op, call)
                    if site is not None and probe and site.touch.count:
                        probes[position] = _probe(site, call, None)
                else:
                    out = self._forced(
                        site, call, choices, weights, chooser, probes, state, probe=probe
                    )
                    out = state.nudged(site, out)
                    out = state.store_in_place(op, call, out)
                if noise is not None:
                    noise.after(op, call, out)
                state.bind(op, read, out, site, forced=pieces is Pieces.FORCED)
        output = state.env[self.analysis.trace.output]
        return Run(output, probes, tuple(state.masks.uses), state.leaves, nudges, state.env)

    @cached_property
    def _offsets(self) -> dict[int, dict[int, torch.Tensor]]:
        """What the program's types made of the values at touched kinks, by site and argument.

        Values that are tied in a coarse type are not so in float64.
        """
        found: dict[int, dict[int, torch.Tensor]] = {}
        for position, probe in self.run(probe=True, grad=False).probes.items():
            kept, args = self.analysis.sites[position].touch.op.kept, probe.call.args
            found[position] = {
                i: v.to(args[i].dtype) - args[i].detach()
                for i, v in kept.items()
                if v.is_floating_point() and args[i].shape == v.shape
            }
        return found

    def _held(self, site: Site, call: Call, state: _State) -> Any:
        """The recorded piece, except for touched kinks, which are evaluated as PyTorch does.

        There the recorded values count, and what the replay's move away from its own adds to them.
        """
        touch = site.touch
        if touch.op.func._schema.name.endswith("_"):
            call = Call(call.func, (call.args[0].clone(), *call.args[1:]), call.kwargs)
        out = site.rule.evaluate(call, touch.base, touch)
        if touch.count == 0 or touch.base.numel() == 0:
            return out
        moved = self._offsets.get(site.position, {})
        apart = tuple(
            a + moved[i] if i in moved else a.clone() if isinstance(a, torch.Tensor) else a
            for i, a in enumerate(call.args)
        )
        natural = state.execute(touch.op, Call(call.func, apart, call.kwargs))
        first = out[0] if isinstance(out, tuple) else out
        free = natural[0] if isinstance(natural, (tuple, list)) else natural
        mask = torch.zeros(first.numel(), dtype=torch.bool)
        mask[touch.elements] = True
        merged = torch.where(mask.reshape(first.shape), free, first)
        return (merged, *out[1:]) if isinstance(out, tuple) else merged

    def _forced(
        self,
        site: Site,
        call: Call,
        choices: Mapping[int, torch.Tensor] | None,
        weights: Mapping[int, torch.Tensor] | None,
        chooser: Callable[[Site, Probe], torch.Tensor] | None,
        probes: dict[int, Probe],
        state: _State,
        *,
        probe: bool,
    ) -> Any:
        touch, rule = site.touch, site.rule
        if touch.op.func._schema.name.endswith("_"):
            # The pieces must not read memory that the result is about to overwrite.
            call = Call(call.func, (call.args[0].clone(), *call.args[1:]), call.kwargs)
        selection = touch.base
        mixture = weights.get(site.position) if weights else None
        if rule.by_weights and mixture is None:
            mixture = (choices or {}).get(site.position, touch.weights)
        if touch.count:
            if rule.by_value and mixture is not None:
                state.share(site, mixture, mixed=isinstance(rule, ComparisonRule))
            if isinstance(rule, ComparisonRule):
                mixture = None  # a mask cannot be mixed; what it selects is, where it is used
            choice = None if mixture is not None else touch.chosen()
            if choices and site.position in choices and not rule.by_weights:
                choice = choices[site.position]
            if chooser is not None:
                choice = chooser(site, _probe(site, call, None))
            if probe:
                probes[site.position] = _probe(site, call, choice)
            if choice is not None:
                selection = rule.merge(touch, choice)
                if rule.by_value and (weights is None or site.position not in weights):
                    own = (touch.members == choice[touch.owner]).to(torch.float64)
                    state.share(site, own, mixed=False)
        func, args, kwargs = adapted(touch.op, call, self.dtype)
        try:
            out = rule.evaluate(Call(func, args, kwargs), selection, touch)
        except (NotImplementedError, RuntimeError, IndexError) as error:
            # A result whose size a mask decides may no longer fit.
            raise _cannot_repeat(touch.op, self.dtype, error) from error
        if mixture is None or not touch.count or isinstance(rule, UnsteeredRule):
            return out
        first = out[0] if isinstance(out, tuple) else out
        values = rule.candidates(call, touch)
        # As differences from one candidate: where all agree, the mean has no rounding. That one
        # is a constant, so that every candidate's derivative is its weight and nothing more.
        start = values[torch.searchsorted(touch.owner, torch.arange(touch.count))].detach()
        mean = start.index_add(
            0, touch.owner, (values - start[touch.owner]) * mixture.to(values.dtype)
        )
        mixed = first.reshape(-1).index_put((touch.elements,), mean).reshape(first.shape)
        return (mixed, *out[1:]) if isinstance(out, tuple) else mixed


def _cannot_repeat(op: OpRecord, dtype: torch.dtype, error: Exception) -> ReplayError:
    return ReplayError(
        f"{op.shown} at {op.location} cannot be run again in {dtype}: {str(error).splitlines()[0]}"
    )


def _probe(site: Site, call: Call, choice: torch.Tensor | None) -> Probe:
    return Probe(
        call,
        site.rule.candidates(call, site.touch),
        site.rule.switching(call, site.touch),
        choice,
    )


def _refuse_changed(external: External) -> None:
    tensor = external.tensor
    if external.rewritten:
        raise ModifiedSinceError(
            f"A tensor read at {external.location} was changed behind autograd's back since "
            "(through `.data` or an alias), so autograd may differentiate at other values than the "
            "program computed with. Change it after backward, or before it is read."
        )
    if external.snapshot is not None or tensor.is_inference():
        return
    if external.origin is Origin.LEAF and tensor._version != external.version:
        raise ModifiedSinceError(
            f"A parameter read at {external.location} was changed in place after the forward pass "
            "and before its gradient was judged. Judge before optimizer.step()."
        )


def _true_shares(site: Site, weights: torch.Tensor) -> torch.Tensor:
    """(K,) the weight of a comparison's piece True at each of its kinks."""
    touch = site.touch
    share = weights * (touch.members == 1).to(weights.dtype)
    return torch.zeros(touch.count, dtype=weights.dtype).index_add(0, touch.owner, share)


class _State:
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
        self.masks = MaskTracker(program.analysis.shared, self.trace.output, program.dtype)
        leaves = []
        for i, (slot, value) in enumerate(
            zip(program.variables, point or program.point, strict=True)
        ):
            program.deadline.ask("copying {} variables", len(program.variables))
            leaf = value.detach().to(self.dtype).clone().requires_grad_(grad)
            leaves.append(leaf)
            self.env[slot] = leaf if tangents is None else make_dual(leaf, tangents[i])
        self.leaves = tuple(leaves)

    def resolve(self, value: Any) -> Any:
        if isinstance(value, Ref):
            found = self.env.get(value.slot)
            return self._external(value.slot) if found is None else found
        if isinstance(value, (list, tuple)):
            return type(value)(self.resolve(v) for v in value) if value else value
        return value

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
            raise _cannot_repeat(op, self.dtype, error) from error

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
