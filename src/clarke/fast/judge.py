"""The quick rung: a verdict from recorded values, or why it takes the whole ladder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.capture import DeclaredFunction, ZeroFinder, is_there, without_values
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide import Decision, TouchCount
from clarke.fast.certificate import LayerCertificate
from clarke.fast.codes import Coder
from clarke.fast.doubt import may_matter
from clarke.fast.graph import Graph, build_graph, trusted_externals
from clarke.fast.layers import POOL, RELU, pool_layer
from clarke.fast.pools import codes_at_hand, find_rivals, pool_ties, settle
from clarke.fast.repertoire import Repertoire
from clarke.fast.rows import same_rows
from clarke.fast.same import CHOICES, agree
from clarke.fast.scratch import Scratch
from clarke.fast.shifts import SHIFTED, find_shift, touch_at_zeros
from clarke.kinks import OpKind, choice_text, slopes_taken
from clarke.kinks.embeddings import is_scaled, padding_row
from clarke.kinks.lowering import lower
from clarke.kinks.singular import SingularRule
from clarke.kinks.table_lowerings import COMPLEX_ONLY
from clarke.kinks.table_scattered import attained, scattered
from clarke.steering import analyse
from clarke.steering.adapt import can_replay_random
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from clarke.capture import OpRecord, Retraced, Trace
    from clarke.compiled import Compiled
    from clarke.fast.fingerprints import Fingerprints
    from clarke.fast.repertoire import Familiar, Plan
    from clarke.kinks import KinkRule, Known, Registry, Touch


# A replay holds all values again: of more elements than these only when autograd has let go of its.
_EARLY = 1 << 20
_SOURCE = 3  # the argument of a reduction by index that is reduced
_SUMMED = frozenset({torch.float32, torch.float64})

_BY_INDEX = frozenset(
    name.partition(".")[0].rstrip("_") for name, _ in scattered() if name != "embedding"
)


@dataclass(frozen=True)
class _Settled:
    """A site with rows: the variable whose direction settles it, and those that cannot matter."""

    position: int
    slot: int
    neutral: frozenset[int]


@dataclass
class _Findings:
    """What one pass over a trace collects."""

    counts: list[TouchCount] = field(default_factory=list)
    settled: list[_Settled] = field(default_factory=list)
    directions: dict[int, torch.Tensor] = field(default_factory=dict)
    order: dict[int, tuple[int, int]] = field(default_factory=dict)
    by_rows: bool = False  # some direction comes from linear conditions, not from a shift
    slopes: dict[int, bool] = field(default_factory=dict)  # ReLU: AD takes slope 0 at zero
    whole: Fingerprints | None = None  # of all images, if they were at hand
    in_doubt: bool = False  # kinks are touched that no bias settles: do they matter?
    in_parts: bool = False  # some of these inside of operations that stand for several


@dataclass(frozen=True, eq=False)
class Pending:
    """What is known of a program whose touched kinks may or may not matter."""

    graph: Graph
    found: _Findings
    variables: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Declined:
    """No quick verdict: the reason, and the operation in question if it is one.

    With `pending`, `QuickJudge.settle` may yet find one when the gradient is there.
    """

    reason: str
    op: OpRecord | None = None
    pending: Pending | None = None

    def __str__(self) -> str:
        place = "" if self.op is None else f"{self.op.shown} at {self.op.location}: "
        return place + self.reason


class QuickJudge:
    """Judges the common cases without replaying the program; holds memory that is used again.

    Args:
        registry: The rules.
        seed: Of the private generator behind the fingerprints.
        compiled: Compiled loops, used on large arrays; None to do without.
    """

    def __init__(self, registry: Registry, seed: int = 0, compiled: Compiled | None = None) -> None:
        self._registry = registry
        self._seed = seed
        self._compiled = compiled
        self._scratch = Scratch()
        self._coder = Coder(seed, compiled)
        self.repertoire = Repertoire(registry)
        # What AD does at ties of a minimum or maximum, in words, by operator and type.
        self._choices: dict[tuple[Any, torch.dtype, frozenset[int]], str] = {}

    def decide(
        self,
        trace: Trace,
        variables: Sequence[int],
        gradient: Sequence[torch.Tensor] | None,
        deadline: Deadline = UNLIMITED,
        *,
        proof: bool = True,
    ) -> Decision | Declined:
        """SMOOTH or BOULIGAND with a certificate, or why `clarke.decide.decide` must judge.

        Args:
            trace: What ran.
            variables: External slots of the variables.
            gradient: What AD returned, one tensor per variable; None if the caller sees to it
                that it is finite.
            deadline: Asked at every operation.
            proof: With a certificate, which costs something to seal.

        Raises:
            OutOfTimeError: No answer in time.
        """
        if gradient is not None and not all_finite(gradient):
            return Declined("the gradient is not finite")
        if trace.applied:
            return Declined("a custom Function's own backward is to be judged")
        if not trusted_externals(trace):
            return Declined("something that the program read was made elsewhere or has changed")
        graph = build_graph(trace, variables)
        if graph is None:
            return Declined("an in-place operation overwrites what others read")
        everything = range(len(trace.ops))
        return self._judged(graph, everything, variables, gradient, deadline, proof=proof)

    def recall(
        self, familiar: Familiar, deadline: Deadline, *, proof: bool = True
    ) -> Decision | Declined:
        """The same of a program that is known, before the gradient is there."""
        retraced, plan = familiar.retraced, familiar.plan
        if plan.plain and not proof:
            found = self._untouched(retraced, plan)
            if found is not None:
                return found
        same = {p for p in plan.typed if retraced.same_arguments(p)}
        trace = retraced.trace()
        looked = [p for p in plan.looked if p not in same]
        graph = replace(plan.graph, trace=trace)
        variables = tuple(plan.graph.bits)
        return self._judged(graph, looked, variables, None, deadline, proof=proof)

    def _untouched(self, retraced: Retraced, plan: Plan) -> Decision | None:
        """That nothing is touched, where ReLUs alone can be."""
        nodes = retraced.nodes
        sizes = []
        for position in plan.relus:
            node = nodes[position]
            if node.zeros is None or node.zeros.numel():
                return None
            output = node.kept_outputs[0]
            if not is_there(output):
                return None
            sizes.append(output.numel())
        if not all(retraced.same_arguments(p) for p in plan.typed):
            return None
        if plan.smooth is None or plan.sizes != tuple(sizes):
            ops = retraced.structure.trace.ops
            counts = [TouchCount(ops[p], n, 0, 0) for p, n in zip(plan.relus, sizes, strict=True)]
            found = _Findings(counts=counts)
            plan.sizes = tuple(sizes)
            plan.smooth = self._verdict(plan.graph, found, (), (), proof=False)
        return plan.smooth

    def _judged(
        self,
        graph: Graph,
        positions: Iterable[int],
        variables: Sequence[int],
        gradient: Sequence[torch.Tensor] | None,
        deadline: Deadline,
        *,
        proof: bool,
    ) -> Decision | Declined:
        """What looking at some of the operations says, the others being smooth."""
        trace, found = graph.trace, _Findings()
        for position in positions:
            op = trace.ops[position]
            deadline.ask("judging recorded values: operation {} of {}", position, len(trace.ops))
            trouble = self._look(graph, position, op, found)
            if trouble:
                return Declined(trouble, op)
        if not _ordered(graph, found):
            return Declined("the directions of two layers get in each other's way")
        if found.in_doubt:
            if found.settled:
                return Declined("a kink is touched that no bias settles")
            pending = Pending(graph, found, tuple(variables))
            if gradient is not None or not (found.in_parts or _size(trace) > _EARLY):
                return self.settle(pending, gradient, deadline, proof=proof)
            return Declined("the gradient decides what a touched kink is worth", pending=pending)
        return self._verdict(graph, found, tuple(variables), tuple(gradient or ()), proof=proof)

    def settle(
        self,
        pending: Pending,
        gradient: Sequence[torch.Tensor] | None,
        deadline: Deadline = UNLIMITED,
        *,
        proof: bool = True,
    ) -> Decision | Declined:
        """SMOOTH where no touched kink matters; the rest as `decide`."""
        graph, found = pending.graph, pending.found
        held = gradient if found.in_parts else None
        analysis = analyse(graph.trace, self._registry, deadline)
        generator = torch.Generator().manual_seed(self._seed)
        if may_matter(analysis, pending.variables, held, generator, deadline):
            return Declined("a kink is touched that no bias settles")
        return self._verdict(graph, found, pending.variables, tuple(gradient or ()), proof=proof)

    def repeatable(self, func: Any) -> bool:
        """Whether an operator overload returns the same when it runs again."""
        return self._registry.known(func).kind is not OpKind.RANDOM

    # ------------------------------------------------------------------ one operation

    def _look(self, graph: Graph, position: int, op: OpRecord, found: _Findings) -> str:
        """Why an operation cannot be accounted for; empty if it can."""
        declared = isinstance(op.func, DeclaredFunction)  # its own derivative is to be judged
        if op.hidden_write or declared or (op.reads_stopped and position in graph.needed):
            return "detached values, hidden writes or declared functions are involved"
        if op.resaved:
            return "tensors were saved in another form, or are computed again"
        if not (op.differentiated or op.reads_stopped):
            return ""  # computed from masks, integers and constants: locally constant
        known = self._registry.judge(op, graph.trace)
        if padding_row(op) is not None and not is_scaled(op):
            return ""  # of the other rows a linear function
        lowering = self._registry.known(op.func).lowering
        if known.kind is OpKind.UNKNOWN and lowering is None:
            return "the operation is not known"
        if known.kind is OpKind.RANDOM:
            fixed = not op.differentiated or can_replay_random(op)
            return "" if fixed else "the operation is random"
        if lowering is not None:
            reduced = attained(op)
            count = None if reduced is None else same_rows(graph, position, reduced, _SOURCE)
            if count is not None:
                found.counts.append(count)
                return ""
            parts = self._parts(op)
            if parts is not None:
                if op.short_name.rstrip("_") in _BY_INDEX:
                    # Its formula does not hold where indices meet: only the gradient tells.
                    found.in_doubt = found.in_parts = True
                return self._look_at_parts(parts, graph.trace, found)
            if known.kind is OpKind.UNKNOWN:
                return "the operation is not known"
        return self._look_for_kinks(graph, position, known, found)

    def _parts(self, op: OpRecord) -> tuple[OpRecord, ...] | None:
        """What an operation stands for; None if it is by itself what it is here."""
        if op.short_name in COMPLEX_ONLY:
            return None
        rule = self._registry.known(op.func).rule
        if isinstance(rule, SingularRule) and rule.find(op).count == 0:
            return None  # analytic here
        with torch.no_grad():
            parts = lower(op, lambda f: self._registry.known(f).lowering, -1)[0]
        return None if parts == (op,) else parts

    def _look_at_parts(self, parts: Sequence[OpRecord], trace: Trace, found: _Findings) -> str:
        """Why one of the parts of an operation cannot be accounted for; empty if all can."""
        for part in parts:
            known = self._registry.judge(part, trace)
            if known.kind not in (OpKind.ANALYTIC, OpKind.RULED):
                return "the operation stands for several, not all of them known"
            if known.rule is None:
                continue
            if known.rule.doubtful:
                return "autograd's formula for a part of the operation holds for some programs only"
            if not any(v.is_floating_point() or v.is_complex() for v in part.kept.values()):
                continue  # integers and masks: locally constant
            touch = known.rule.find(part)
            if touch.hazards:
                return "a kink is touched that no bias settles"
            # Autograd differentiates the whole in its own way, which no rule of a part tells.
            found.in_doubt = found.in_doubt or touch.count > 0
            found.in_parts = found.in_parts or touch.count > 0
            elements = max(touch.base.numel(), touch.count)
            found.counts.append(TouchCount(part, elements, touch.count, 0, touch))
        return ""

    def _look_for_kinks(self, graph: Graph, position: int, known: Known, found: _Findings) -> str:
        op = graph.trace.ops[position]
        if known.kind is not OpKind.RULED or known.rule is None:
            return ""
        if op.signs is None and not any(
            v.is_floating_point() or v.is_complex() for v in op.kept.values()
        ):
            return ""
        if known.rule.doubtful and op.differentiated:
            return "autograd's formula for the operation holds for some programs only"
        if op.name == POOL and op.differentiated:
            return self._pool(graph, position, found)
        touch: Touch | None
        if op.short_name in RELU and op.differentiated:
            elements, touch = _relu_touch(known.rule, op)
            above = touch is not None and bool(touch.mixed().any() | (touch.chosen() != 0).any())
            found.slopes[position] = not above
        else:
            places = known.rule.places(op)
            if places is not None:
                count = self._without_listing(graph, position, *places)
                if count is not None:
                    found.counts.append(count)
                    return ""
            touch = known.rule.find(op)
            elements = max(touch.base.numel(), touch.count)
        if touch is None or touch.count == 0:
            found.counts.append(TouchCount(op, elements, 0, 0))
            return ""
        if not op.differentiated or touch.hazards:
            return "a kink is touched that no bias settles"
        if op.short_name not in SHIFTED:
            same = agree(graph, position, touch.elements)
            if op.short_name in CHOICES and not slopes_taken(touch):
                # By formula: the same at every tie of numbers of one type.
                self._choices[op.func, op.kept[0].dtype, op.varied] = choice_text(touch)
            found.in_doubt = found.in_doubt or not same
            found.counts.append(TouchCount(op, elements, touch.count, 0, touch))
            return ""
        found.counts.append(TouchCount(op, elements, touch.count, touch.count, touch))
        return _shift(graph, position, touch, found)

    def _without_listing(
        self, graph: Graph, position: int, elements: int, touched: torch.Tensor
    ) -> TouchCount | None:
        """The count of an operation of which that is all there is to know; else None."""
        op = graph.trace.ops[position]
        if not touched.numel():
            return TouchCount(op, elements, 0, 0)
        if op.short_name not in CHOICES or not op.differentiated:
            return None
        choice = self._choices.get((op.func, op.kept[0].dtype, op.varied))
        if choice is None or not agree(graph, position, touched):
            return None
        return TouchCount(op, elements, touched.numel(), 0, choice=choice)

    def _pool(self, graph: Graph, position: int, found: _Findings) -> str:
        op = graph.trace.ops[position]
        if _reads_index(graph, position):
            return "the index of the maximum is used"
        layer = pool_layer(graph, position)
        if layer is None:
            return "what stands before the maxpool is not a convolution"
        known = codes_at_hand(graph, layer, self._coder, self._compiled)
        found.whole = found.whole or known
        ties = pool_ties(graph, layer, self._scratch, self._compiled, known)
        if ties is None:
            return "the maxpool's input is not an array of float32 or float64 on the CPU"
        if layer.relu is not None and not found.slopes.get(layer.relu, False):
            return "the ReLU before the maxpool does not have slope 0 at 0"
        touched, rivals = ties.count + ties.zero_ties, 0
        if ties.images(1).size:
            rest = (self._coder, self._compiled, known, found.whole)
            different = find_rivals(graph, layer, ties, *rest)
            if different is None:
                return "there is no fingerprint for what stands before the maxpool"
            rivals = different.windows
            if rivals and layer.weight in found.directions:
                return "two maxpools need directions of the same weights"
            if rivals:
                direction = settle(graph, layer, different)
                if direction is None:
                    return f"no direction of the layer's weights settles {rivals} tied windows"
                use = graph.uses[layer.weight]
                found.directions[layer.weight] = direction
                found.order[layer.weight] = (use, 0)
                found.by_rows = True
                found.settled.append(_Settled(position, layer.weight, layer.biases))
        nonzero = None if layer.relu is None else ties.count
        found.counts.append(TouchCount(op, ties.windows, touched, rivals, nonzero=nonzero))
        return ""

    # ------------------------------------------------------------------ the verdict

    def _verdict(
        self,
        graph: Graph,
        found: _Findings,
        variables: tuple[int, ...],
        gradient: tuple[torch.Tensor, ...],
        *,
        proof: bool,
    ) -> Decision:
        certificate = None
        if proof:
            slots = sorted(found.directions, key=lambda s: found.order[s])
            certificate = LayerCertificate(
                directions={s: found.directions[s] for s in slots},
                trace=graph.trace,
                variables=variables,
                gradient=gradient,
            ).sealed()
        verdict = Verdict.BOULIGAND if found.settled else Verdict.SMOOTH
        theorem = "no relevant kink"
        if found.settled:
            theorem = (
                "layer-local witness (Theorem 8)" if found.by_rows else "bias shift (Theorem 6)"
            )
        return Decision(
            verdict,
            verdict.value,
            certificate,
            theorem,
            counts=tuple(found.counts),
        )


def _size(trace: Trace) -> int:
    """How many elements a trace holds."""
    return sum(v.numel() for op in trace.ops if op.signs is None for v in op.kept.values())


def let_go(decision: Decision, repeatable: Callable[[Any], bool]) -> Decision:
    """A quick decision without the recorded values, which may be large.

    A certificate computes them again when it is verified.
    """
    certificate = decision.certificate
    if isinstance(certificate, LayerCertificate):
        trace = without_values(certificate.trace, repeatable)
        trace = replace(trace, externals=MappingProxyType(dict(trace.externals)))
        certificate = replace(certificate, trace=trace)
    counts = decision.counts
    if any(c.touch is not None or c.op.bare() is not c.op for c in counts):
        counts = tuple(_without_values(c) for c in counts)
    elif certificate is decision.certificate:
        return decision
    return replace(decision, certificate=certificate, counts=counts)


def _without_values(count: TouchCount) -> TouchCount:
    op = count.op.bare()
    touch = None if count.touch is None else replace(count.touch, op=op)
    return replace(count, op=op, touch=touch)


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether no entry is NaN or infinite; one pass over each tensor."""
    if len(tensors) == 1 and tensors[0].numel() == 1 and not tensors[0].is_complex():
        return math.isfinite(tensors[0].detach().item())
    plain = [t for t in tensors if t.layout == torch.strided and t.dtype in _SUMMED]
    if len(plain) == len(tensors) and plain and len({t.dtype for t in plain}) == 1:
        # A sum is the quickest pass there is, and finite only if all entries are.
        sums = [(t.detach() if t.requires_grad else t).sum() for t in plain]
        if math.isfinite(float(sums[0] if len(sums) == 1 else torch.stack(sums).sum())):
            return True
    ends: dict[torch.dtype, list[torch.Tensor]] = {}
    for t in tensors:
        if t.layout != torch.strided or not t.is_floating_point():
            if not bool(torch.isfinite(t.to_dense() if t.layout != torch.strided else t).all()):
                return False
        elif t.numel():
            # A NaN makes both ends NaN.
            ends.setdefault(t.dtype, []).extend(torch.aminmax(t.detach()))
    return all(bool(torch.isfinite(torch.stack(found)).all()) for found in ends.values())


def _relu_touch(rule: KinkRule, op: OpRecord) -> tuple[int, Touch | None]:
    """Number of elements of a ReLU, and its touched kinks if there are any."""
    if op.signs is not None:
        elements, at = op.signs.output.numel(), op.signs.zeros
    else:
        elements, at = op.kept[0].numel(), ZeroFinder().find(op.kept[0])
    return elements, touch_at_zeros(rule, op, at) if at.numel() else None


def _reads_index(graph: Graph, position: int) -> bool:
    """Whether another operation reads the index that a maxpool returns."""
    op = graph.trace.ops[position]
    index = op.outputs[1] if len(op.outputs) > 1 else None
    return any(index in graph.makers[r] for r in graph.readers[position])


def _shift(graph: Graph, position: int, touch: Touch, found: _Findings) -> str:
    shift = find_shift(graph, position, touch)
    if shift is None:
        return "no shift of one bias settles the touched kinks"
    earlier = found.directions.get(shift.slot)
    signs = shift.signs
    if earlier is not None:
        if bool((earlier * signs < 0).any()):
            return "two operations need opposite shifts of one bias"
        signs = torch.where(earlier != 0, earlier, signs)
    found.directions[shift.slot] = signs
    found.order[shift.slot] = (shift.use, 1)
    found.settled.append(_Settled(position, shift.slot, frozenset()))
    return ""


def _ordered(graph: Graph, found: _Findings) -> bool:
    """Whether every settled site depends on no direction that comes after its own."""
    for site in found.settled:
        maker = graph.maker(site.position, 0)
        own = found.order[site.slot]
        for slot, key in found.order.items():
            if key > own and slot not in site.neutral and graph.depends(maker, slot):
                return False
    return True
