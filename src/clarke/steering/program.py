"""A recorded program that can be run again: at other points, with forced pieces, along tangents."""

from __future__ import annotations

import copy
import importlib
import warnings
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import External, OpRecord, Origin, Trace, refuse_missing
from clarke.deadline import UNLIMITED, Deadline
from clarke.errors import ModifiedSinceError, ReplayError
from clarke.kinks import Call, Touch
from clarke.kinks.model import UnsteeredRule
from clarke.kinks.steps import ComparisonRule
from clarke.steering.adapt import adapted
from clarke.steering.analysis import Analysis, Site
from clarke.steering.functions import Functions
from clarke.steering.noise import Errors, Noise
from clarke.steering.nudges import Nudges
from clarke.steering.pace import Pace
from clarke.steering.roundoff import Roundoffs
from clarke.steering.state import Probe, State, cannot_repeat
from clarke.steering.uses import MaskUse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Pieces(Enum):
    """How a replay treats operations with kinks."""

    NATURAL = "as PyTorch evaluates them at the point of the replay"
    TRUE = "natural, with a true derivative where PyTorch's own formula is in doubt"
    HELD = "as PyTorch evaluates recorded values at touched kinks, the recorded piece elsewhere"
    FORCED = "the piece that the selection names, everywhere"


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


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What a replay forces and looks at; see `Program.run`."""

    pieces: Pieces
    choices: Mapping[int, torch.Tensor] = field(default_factory=dict)
    weights: Mapping[int, torch.Tensor] = field(default_factory=dict)
    chooser: Callable[[Site, Probe], torch.Tensor] | None = None
    probe: bool = False
    probes: dict[int, Probe] = field(default_factory=dict)

    @property
    def sites(self) -> bool:
        """Whether operations with kinks are told from others."""
        return self.pieces in (Pieces.FORCED, Pieces.HELD) or self.probe

    def choice(self, site: Site, call: Call, mixture: torch.Tensor | None) -> torch.Tensor | None:
        """The candidates of a site's touched kinks; None where they are mixed."""
        choice = None if mixture is not None else site.touch.chosen()
        if site.position in self.choices and not site.rule.by_weights:
            choice = self.choices[site.position]
        if self.chooser is not None and not site.rule.by_weights:
            choice = self.chooser(site, Probe.of(site, call, None))
        if self.probe:
            self.probes[site.position] = Probe.of(site, call, choice)
        return choice


# Operations whose forward-mode rules torch has in Python, where loading them costs a second: most
# are derivatives that are differentiated again.
_RULES_OF_PYTHON = frozenset(
    {"trace", "log_sigmoid_forward", "nll_loss_backward", "nll_loss2d_backward"}
    | {"_log_softmax_backward_data", "_softmax_backward_data", "native_layer_norm_backward"}
    | {"native_batch_norm_backward", "batch_norm_backward"}
)


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

    @property
    def tensors(self) -> Mapping[int, torch.Tensor]:
        """Every tensor of the program, in its type of replays."""
        return self.run(grad=False).tensors

    @cached_property
    def _sizes(self) -> dict[int, int]:
        """Elements of every tensor of the program."""
        return _elements(self.tensors)

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
        state = State(self, point, tangents, nudges, grad=grad)
        wanted = _Wanted(
            pieces,
            {} if choices is None else choices,
            {} if weights is None else weights,
            chooser,
            probe,
        )
        with torch.set_grad_enabled(grad):
            trace = self.analysis.trace if wanted.sites else self.analysis.recorded
            pace = Pace(self.deadline, trace.ops, state.env)
            called = Functions(trace, self.dtype) if functions else None
            noise = None if errors is None else Noise(errors, self._roundoffs(trace, errors))
            for position, op in enumerate(trace.ops):
                pace.at(position)
                if called is None or not called.take(op, state.resolve, state.env):
                    self._step(position, op, wanted, state, noise)
        if point is None and wanted.sites and "_sizes" not in self.__dict__:
            self._sizes = _elements(state.env)
        output = state.env[self.analysis.trace.output]
        uses = tuple(state.masks.uses)
        return Run(output, wanted.probes, uses, state.leaves, nudges, state.env)

    def _step(
        self, position: int, op: OpRecord, wanted: _Wanted, state: State, noise: Noise | None
    ) -> None:
        """Run one operation, and bind its results."""
        if op.hidden_write:
            raise ReplayError(
                f"{op.shown} at {op.location} changed a differentiated tensor while "
                "gradients were switched off."
            )
        call = state.call(op)
        if noise is not None:
            call = noise.of(op, call)
        pieces = wanted.pieces
        if pieces is Pieces.TRUE and op.index in self.analysis.doubtful:
            out = self._forced(self.analysis.doubtful[op.index], call, _Wanted(pieces), state)
            state.bind(op, call, out, None, forced=False)
            return
        site = self.analysis.sites.get(position) if wanted.sites else None
        # Before an in-place operation overwrites it.
        read = state.masks.before(op, call) if pieces is Pieces.FORCED else call
        if site is not None and pieces is Pieces.HELD:
            out = state.store_in_place(op, call, self._held(site, call, state))
        elif site is None or pieces in (Pieces.NATURAL, Pieces.TRUE):
            out = state.execute(op, call)
            if site is not None and wanted.probe and site.touch.count:
                wanted.probes[position] = Probe.of(site, call, None)
        else:
            out = state.nudged(site, self._forced(site, call, wanted, state))
            out = state.store_in_place(op, call, out)
        if noise is not None:
            noise.after(op, call, out)
        state.bind(op, read, out, site, forced=pieces is Pieces.FORCED)

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

    def _held(self, site: Site, call: Call, state: State) -> Any:
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

    def _forced(self, site: Site, call: Call, wanted: _Wanted, state: State) -> Any:
        touch, rule = site.touch, site.rule
        if touch.op.func._schema.name.endswith("_"):
            # The pieces must not read memory that the result is about to overwrite.
            call = Call(call.func, (call.args[0].clone(), *call.args[1:]), call.kwargs)
        selection = touch.base
        mixture = wanted.weights.get(site.position)
        if rule.by_weights and mixture is None:
            mixture = wanted.choices.get(site.position, touch.weights)
            if wanted.chooser is not None and touch.count:
                mixture = wanted.chooser(site, Probe.of(site, call, None))
        if touch.count:
            if rule.by_value and mixture is not None:
                state.share(site, mixture, mixed=isinstance(rule, ComparisonRule))
            if isinstance(rule, ComparisonRule):
                mixture = None  # a mask cannot be mixed; what it selects is, where it is used
            choice = wanted.choice(site, call, mixture)
            if choice is not None:
                selection = rule.merge(touch, choice)
                if rule.by_value and site.position not in wanted.weights:
                    own = (touch.members == choice[touch.owner]).to(torch.float64)
                    state.share(site, own, mixed=False)
        func, args, kwargs = adapted(touch.op, call, self.dtype)
        try:
            out = rule.evaluate(Call(func, args, kwargs), selection, touch)
        except (NotImplementedError, RuntimeError, IndexError) as error:
            # A result whose size a mask decides may no longer fit.
            raise cannot_repeat(touch.op, self.dtype, error) from error
        if mixture is None or not touch.count or isinstance(rule, UnsteeredRule):
            return out
        return _mixed(out, rule.candidates(call, touch), touch, mixture)


def _elements(tensors: Mapping[int, torch.Tensor]) -> dict[int, int]:
    return {slot: tensor.numel() for slot, tensor in tensors.items()}


def _mixed(out: Any, values: torch.Tensor, touch: Touch, mixture: torch.Tensor) -> Any:
    """A result with the mean of the candidates at touched kinks."""
    first = out[0] if isinstance(out, tuple) else out
    # As differences from one candidate: where all agree, the mean has no rounding. That one
    # is a constant, so that every candidate's derivative is its weight and nothing more.
    start = values[torch.searchsorted(touch.owner, torch.arange(touch.count))].detach()
    mean = start.index_add(0, touch.owner, (values - start[touch.owner]) * mixture.to(values.dtype))
    mixed = first.reshape(-1).index_put((touch.elements,), mean).reshape(first.shape)
    return (mixed, *out[1:]) if isinstance(out, tuple) else mixed


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
