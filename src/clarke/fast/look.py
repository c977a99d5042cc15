"""What one recorded operation adds to a quick verdict: its touched kinks, and what settles them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch

from clarke.capture import DeclaredFunction, Ref, ZeroFinder, bare_op
from clarke.decide import TouchCount
from clarke.decide.hazards import matters, may_jump
from clarke.fast.codes import Coder
from clarke.fast.dead import without_dead, without_own_distance
from clarke.fast.graph import is_behind
from clarke.fast.layers import POOL, RELU, pool_layer
from clarke.fast.pools import codes_at_hand, find_rivals, pool_ties, settle
from clarke.fast.rows import same_rows
from clarke.fast.same import CHOICES, agree
from clarke.fast.scratch import Scratch
from clarke.fast.shifts import SHIFTED, find_shift, touch_at_zeros
from clarke.kinks import Hazard, OpKind, choice_text, slopes_taken
from clarke.kinks.embeddings import is_scaled, padding_row
from clarke.kinks.formulas import FormulaRule
from clarke.kinks.lowering import lower
from clarke.kinks.rewire import sloped
from clarke.kinks.singular import SingularRule
from clarke.kinks.table_lowerings import COMPLEX_ONLY, ROBUST
from clarke.kinks.table_scattered import by_index, scattered
from clarke.steering.adapt import can_replay_random

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from clarke.capture import OpRecord, Trace
    from clarke.compiled import Compiled
    from clarke.fast.fingerprints import Fingerprints
    from clarke.fast.graph import Graph
    from clarke.fast.layers import PoolLayer
    from clarke.fast.pools import Rivals
    from clarke.kinks import KinkRule, Known, Registry, Touch
    from clarke.steering.adding import OneByOne

_ROUND: Final = frozenset({Hazard.CONE})  # whether it matters is seen as of other kinks
_BOUND = 3  # position of the argument up to which a robust loss is a square
_SOURCE = 3  # the argument of a reduction by index that is reduced
_BY_INDEX = frozenset(
    name.partition(".")[0].rstrip("_") for name, _ in scattered() if name != "embedding"
)


@dataclass(frozen=True)
class Settled:
    """A site with rows: the variable whose direction settles it, and those that cannot matter."""

    position: int
    slot: int
    neutral: frozenset[int]


def nothing() -> None:
    """Do nothing."""


@dataclass
class Findings:
    """What one pass over a trace collects; `dear` is called before anything runs again."""

    dear: Callable[[], object] = nothing
    counts: list[TouchCount] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    directions: dict[int, torch.Tensor] = field(default_factory=dict)
    order: dict[int, tuple[int, int]] = field(default_factory=dict)
    by_rows: bool = False  # some direction comes from linear conditions, not from a shift
    slopes: dict[int, bool] = field(default_factory=dict)  # ReLU: AD takes slope 0 at zero
    whole: Fingerprints | None = None  # of all images, if they were at hand
    in_doubt: bool = False  # kinks are touched that no bias settles: do they matter?
    in_parts: bool = False  # some of these inside of operations that stand for several
    sums: tuple[OneByOne, ...] = ()  # may have lost terms: only the gradient tells
    compared: bool = False  # autograd's own formulas may not hold: only the gradient tells


class Look:
    """Looks at operations one by one; holds memory that is used again.

    Args:
        registry: The rules.
        seed: Of the private generator behind the fingerprints.
        compiled: Compiled loops, used on large arrays; None to do without.
    """

    def __init__(self, registry: Registry, seed: int, compiled: Compiled | None) -> None:
        self._registry = registry
        self._compiled = compiled
        self._scratch = Scratch()
        self._coder = Coder(seed, compiled)
        # What AD does at ties of a minimum or maximum, in words, by operator and type.
        self._choices: dict[tuple[Any, torch.dtype, frozenset[int]], str] = {}

    def at(self, graph: Graph, position: int, op: OpRecord, found: Findings) -> str:
        """Why an operation cannot be accounted for; empty if it can."""
        declared = isinstance(op.func, DeclaredFunction)  # its own derivative is to be judged
        if op.hidden_write or declared:
            return "hidden writes or declared functions are involved"
        if op.resaved:
            return "tensors were saved in another form, or are computed again"
        if not (op.differentiated or op.reads_stopped):
            return ""  # computed from masks, integers and constants: locally constant
        lowering = self._registry.known(op.func).lowering
        reduced = None if lowering is None else by_index(op)
        count = None if reduced is None else same_rows(graph, position, reduced, _SOURCE)
        if count is not None:
            found.counts.append(count)
            return ""
        known = self._registry.judge(op, graph.trace)
        if padding_row(op) is not None and not is_scaled(op):
            return ""  # of the other rows a linear function
        if known.kind is OpKind.ANALYTIC and known.rule is None:
            return ""  # with these arguments: bags that are added up, cells that are apart
        if known.kind is OpKind.UNKNOWN and lowering is None:
            return "the operation is not known" if matters(op, graph.trace) else ""
        if known.kind is OpKind.RANDOM:
            fixed = not op.differentiated or can_replay_random(op)
            return "" if fixed else "the operation is random"
        if lowering is not None:
            parts = self._parts(op, found)
            if parts is not None:
                if op.short_name.rstrip("_") in _BY_INDEX:
                    # Its formula does not hold where indices meet: only the gradient tells.
                    found.in_doubt = found.in_parts = True
                return self._look_at_parts(op, parts, graph.trace, found)
            if known.kind is OpKind.UNKNOWN:
                return "the operation is not known"
        return self.for_kinks(graph, position, known, found)

    def _parts(self, op: OpRecord, found: Findings) -> tuple[OpRecord, ...] | None:
        """What an operation stands for; None if it is by itself what it is here."""
        if op.short_name in COMPLEX_ONLY:
            return None
        rule = self._registry.known(op.func).rule
        if isinstance(rule, SingularRule) and rule.places(op) is not None:
            return None  # analytic here
        element = _by_element(op)
        if element is not None:
            return (element,)
        found.dear()
        with torch.no_grad():
            parts = lower(op, lambda f: self._registry.known(f).lowering, -1)[0]
        return None if parts == (op,) else parts

    def _look_at_parts(
        self, op: OpRecord, parts: Sequence[OpRecord], trace: Trace, found: Findings
    ) -> str:
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
            left = without_own_distance(op, touch)
            if not left.hazards.keys() <= _ROUND:
                return "a kink is touched that no bias settles"
            # Autograd differentiates the whole in its own way, which no rule of a part tells.
            matters = left.count > 0 and known.rule.bends(part)
            found.in_doubt = found.in_doubt or matters
            found.in_parts = found.in_parts or matters
            elements = max(touch.base.numel(), touch.count)
            found.counts.append(TouchCount(part, elements, touch.count, 0, touch))
        return ""

    def for_kinks(self, graph: Graph, position: int, known: Known, found: Findings) -> str:
        """The same of an operation that has at most a rule."""
        op = graph.trace.ops[position]
        if known.kind is not OpKind.RULED or known.rule is None:
            return ""
        if op.signs is None and not any(
            v.is_floating_point() or v.is_complex() for v in op.kept.values()
        ):
            return ""
        if known.rule.doubtful and op.differentiated:
            return self._by_formula(graph, position, known.rule, found)
        if op.name == POOL and op.differentiated and not graph.tangled:
            layer = pool_layer(graph, position)
            trouble = None if layer is None else self._pool(graph, position, layer, found)
            if trouble is not None:
                return trouble
        if _is_slope_beside_kinks(graph, position, op):
            found.counts.append(TouchCount(op, op.kept[1].numel(), 0, 0))
            return ""
        return self._touched(graph, position, known.rule, found)

    def _by_formula(self, graph: Graph, position: int, rule: KinkRule, found: Findings) -> str:
        """The same of an operation whose own formula holds for some programs only."""
        op = graph.trace.ops[position]
        touch = rule.find(op)
        if touch.count:
            return "autograd's formula for the operation holds for some programs only"
        found.counts.append(TouchCount(op, touch.base.numel(), 0, 0))
        behind = rule.behind if isinstance(rule, FormulaRule) else ""
        found.compared = found.compared or not (behind and is_behind(graph, position, behind))
        return ""

    def _touched(self, graph: Graph, position: int, rule: KinkRule, found: Findings) -> str:
        """The same of an operation for which no layer speaks: what it touches is listed."""
        op = graph.trace.ops[position]
        touch: Touch | None
        if op.short_name in RELU and op.differentiated:
            found.dear()
            elements, touch = _relu_touch(rule, op)
            above = touch is not None and bool(touch.mixed().any() | (touch.chosen() != 0).any())
            found.slopes[position] = not above
        else:
            places = rule.places(op)
            if places is not None:
                count = self._without_listing(graph, position, *places)
                if count is not None:
                    found.counts.append(count)
                    return ""
            found.dear()
            touch = rule.find(op)
            elements = max(touch.base.numel(), touch.count)
        if touch is None or touch.count == 0:
            found.counts.append(TouchCount(op, elements, 0, 0))
            return ""
        if not op.differentiated and not may_jump(rule, touch, graph.trace):
            found.counts.append(TouchCount(op, elements, touch.count, 0, touch))
            return ""  # of constants: on either side the same one
        trouble, relevant = self._at_kinks(graph, position, rule, touch, found)
        if not trouble:
            found.counts.append(TouchCount(op, elements, touch.count, relevant, touch))
        return trouble

    def _at_kinks(
        self, graph: Graph, position: int, rule: KinkRule, touch: Touch, found: Findings
    ) -> tuple[str, int]:
        """Why touched kinks cannot be accounted for, if so; and how many a shift has settled."""
        if not rule.bends(touch.op) and touch.op.differentiated and not touch.hazards:
            return "", 0
        touch = without_dead(graph, position, touch)
        if not touch.count:
            return "", 0
        if not touch.op.differentiated or not touch.hazards.keys() <= _ROUND:
            return "a kink is touched that no bias settles", 0
        if touch.hazards:
            found.in_doubt = True
            return "", 0
        if self._settled(graph, position, touch, found):
            return "", touch.count
        found.in_doubt = found.in_doubt or not agree(graph, position, touch.elements)
        return "", 0

    def _settled(self, graph: Graph, position: int, touch: Touch, found: Findings) -> bool:
        """Whether a shift of a bias selects AD's pieces at the touched kinks."""
        op = touch.op
        if op.short_name in SHIFTED:
            return not graph.tangled and _shift(graph, position, touch, found)
        if op.short_name in CHOICES and not slopes_taken(touch):
            # By formula: the same at every tie of numbers of one type.
            self._choices[op.func, op.kept[0].dtype, op.varied] = choice_text(touch)
        return False

    def _without_listing(
        self, graph: Graph, position: int, elements: int, touched: torch.Tensor
    ) -> TouchCount | None:
        """The count of an operation of which that is all there is to know; else None."""
        if not touched.numel():
            return TouchCount(bare_op(graph.trace, position), elements, 0, 0)
        op = graph.trace.ops[position]
        if op.short_name not in CHOICES or not op.differentiated:
            return None
        choice = self._choices.get((op.func, op.kept[0].dtype, op.varied))
        if choice is None or not agree(graph, position, touched):
            return None
        bare = bare_op(graph.trace, position)
        return TouchCount(bare, elements, touched.numel(), 0, choice=choice)

    def _pool(self, graph: Graph, position: int, layer: PoolLayer, found: Findings) -> str | None:
        """The same of a maxpool behind a convolution; None where its ties are to be listed."""
        op = graph.trace.ops[position]
        if _reads_index(graph, position):
            return "the index of the maximum is used"
        known = codes_at_hand(graph, layer, self._coder, self._compiled)
        found.whole = found.whole or known
        ties = pool_ties(graph, layer, self._scratch, self._compiled, known)
        if ties is None:
            return _unless_listed(
                layer, "the maxpool's input is not an array of float32 or float64 on the CPU"
            )
        if layer.relu is not None and not found.slopes.get(layer.relu, False):
            return _unless_listed(layer, "the ReLU before the maxpool does not have slope 0 at 0")
        touched, rivals = ties.count + ties.zero_ties, 0
        if ties.images(1).size:
            rest = (self._coder, self._compiled, known, found.whole)
            different = find_rivals(graph, layer, ties, *rest)
            if different is None:
                return _unless_listed(
                    layer, "there is no fingerprint for what stands before the maxpool"
                )
            rivals = different.windows
            trouble = self._settle_pool(graph, position, layer, different, found) if rivals else ""
            if trouble != "":
                return trouble
        nonzero = None if layer.relu is None else ties.count
        found.counts.append(TouchCount(op, ties.windows, touched, rivals, nonzero=nonzero))
        return ""

    def _settle_pool(
        self, graph: Graph, position: int, layer: PoolLayer, rivals: Rivals, found: Findings
    ) -> str | None:
        """Why no direction of a layer's weights selects what AD took; None without such weights."""
        if layer.weight is None:
            return None
        if layer.weight in found.directions:
            return "two maxpools need directions of the same weights"
        direction = settle(graph, layer, rivals)
        if direction is None:
            return f"no direction of the layer's weights settles {rivals.windows} tied windows"
        found.directions[layer.weight] = direction
        found.order[layer.weight] = (graph.uses[layer.weight], 0)
        found.by_rows = True
        found.settled.append(Settled(position, layer.weight, layer.biases))
        return ""


def _by_element(op: OpRecord) -> OpRecord | None:
    """A robust loss without its mean or sum, which have no kinks; None for any other operation.

    What its lowering has for a part, without running that.
    """
    if op.short_name not in ROBUST or op.kwargs:
        return None
    bound = float(op.args[_BOUND]) if len(op.args) > _BOUND else 1.0
    if bound == 0:
        return None
    return op.holding(args=(*op.args[:2], 0, bound), stands_for=op.shown)


def _unless_listed(layer: PoolLayer, trouble: str) -> str | None:
    """Why a maxpool cannot be accounted for; None where nothing but listing its ties can."""
    return None if layer.weight is None else trouble


def _relu_touch(rule: KinkRule, op: OpRecord) -> tuple[int, Touch | None]:
    """Number of elements of a ReLU, and its touched kinks if there are any."""
    if op.signs is not None:
        elements, at = op.signs.output.numel(), op.signs.zeros
    else:
        elements, at = op.kept[0].numel(), ZeroFinder().find(op.kept[0])
    return elements, touch_at_zeros(rule, op, at) if at.numel() else None


def _is_slope_beside_kinks(graph: Graph, position: int, op: OpRecord) -> bool:
    """Whether an operation is the slope of a ReLU none of whose arguments is zero.

    It compares the ReLU's result with zero, which that is wherever the ReLU is off: no tie.
    """
    maker = None if sloped(op) is None or graph.tangled else graph.maker(position, 1)
    return maker is not None and _is_untouched_relu(graph.trace.ops[maker], op.args[1])


def _is_untouched_relu(op: OpRecord, result: Ref) -> bool:
    """Whether a value is the result of a ReLU none of whose arguments is zero."""
    if op.short_name not in RELU or op.outputs != (result.slot,):
        return False
    if op.signs is not None:
        return op.signs.zeros.numel() == 0
    return 0 in op.kept and ZeroFinder().find(op.kept[0]).numel() == 0


def _reads_index(graph: Graph, position: int) -> bool:
    """Whether another operation reads the index that a maxpool returns."""
    op = graph.trace.ops[position]
    index = op.outputs[1] if len(op.outputs) > 1 else None
    return any(index in graph.makers[r] for r in graph.readers[position])


def _shift(graph: Graph, position: int, touch: Touch, found: Findings) -> bool:
    """Whether the shift of one bias settles touched kinks, and gets in no other's way."""
    shift = find_shift(graph, position, touch)
    if shift is None:
        return False
    earlier = found.directions.get(shift.slot)
    signs = shift.signs
    if earlier is not None:
        if bool((earlier * signs < 0).any()):
            return False
        signs = torch.where(earlier != 0, earlier, signs)
    found.directions[shift.slot] = signs
    found.order[shift.slot] = (shift.use, 1)
    found.settled.append(Settled(position, shift.slot, frozenset()))
    return True
