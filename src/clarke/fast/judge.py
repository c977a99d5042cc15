"""The quick rung: a verdict from recorded values, or why it takes the whole ladder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import torch

from clarke.capture import all_finite, is_there, without_values
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide import Certificate, Decision, TouchCount
from clarke.decide.certificate import Recording
from clarke.fast.declared import Declared
from clarke.fast.doubt import may_matter
from clarke.fast.graph import Graph, build_graph, trusted_externals
from clarke.fast.layered import Layered
from clarke.fast.look import Findings, Look, nothing
from clarke.fast.lossy import Lossy, sums_of
from clarke.fast.repertoire import Repertoire
from clarke.fast.vouched import Vouched
from clarke.steering import Program, analyse
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from clarke.capture import OpRecord, Trace
    from clarke.compiled import Compiled
    from clarke.fast.repertoire import Familiar, Plan
    from clarke.kinks import Known, Registry
    from clarke.steering import Analysis


# A replay holds all values again: of more elements than these only when autograd has let go of its.
_EARLY = 1 << 20
_NO_RULES: Final[Mapping[int, Known]] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Pending:
    """What is known of a program whose touched kinks may or may not matter."""

    graph: Graph
    found: Findings
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
        self._look = Look(registry, seed, compiled)
        self.repertoire = Repertoire(registry)
        self.declared = Declared()
        self.vouched = Vouched()
        self.lossy = Lossy()

    def decide(
        self,
        trace: Trace,
        variables: Sequence[int],
        gradient: Sequence[torch.Tensor] | None,
        deadline: Deadline = UNLIMITED,
        *,
        proof: bool = True,
        held: bool = False,
        applied: bool = False,
    ) -> Decision | Declined:
        """SMOOTH or BOULIGAND with a certificate, or why `clarke.decide.decide` must judge.

        Args:
            trace: What ran.
            variables: External slots of the variables.
            gradient: What AD returned, one tensor per variable; None if the caller sees to it
                that it is finite.
            deadline: Asked at every operation.
            proof: With a certificate, which costs something to seal.
            held: Detached values are constants: nothing known says that they move with the
                variables.
            applied: Somebody else compares what custom Functions return.

        Raises:
            OutOfTimeError: No answer in time.
        """
        if gradient is not None and not all_finite(gradient):
            return Declined("the gradient is not finite")
        if trace.applied and not applied:
            return Declined("a custom Function's own backward is to be judged")
        if not trusted_externals(trace):
            return Declined("something that the program read was made elsewhere or has changed")
        graph = build_graph(trace, variables)
        if not held and any(
            op.reads_stopped and i in graph.needed for i, op in enumerate(trace.ops)
        ):
            return Declined("detached values may declare a derivative of their own")
        everything = range(len(trace.ops))
        return self._judged(graph, everything, variables, gradient, deadline, proof=proof)

    def recall(
        self,
        familiar: Familiar,
        deadline: Deadline,
        *,
        proof: bool = True,
        dear: Callable[[], object] = nothing,
    ) -> Decision | Declined:
        """The same of a program that is known, before the gradient is there.

        `dear` is called before anything runs again; to look at values runs nothing.
        """
        retraced, plan = familiar.retraced, familiar.plan
        same = {p for p in plan.typed if retraced.same_arguments(p)}
        looked = [p for p in plan.looked if p not in same]
        graph = plan.graph.running(retraced.trace() if proof else retraced.glance())
        variables = tuple(plan.graph.bits)
        found = self._judged(
            graph, looked, variables, None, deadline, proof=proof, run=familiar, dear=dear
        )
        if isinstance(found, Declined) and found.pending is not None and not proof:
            graph = graph.running(retraced.trace())
            return replace(found, pending=replace(found.pending, graph=graph))
        return found

    def _judged(
        self,
        graph: Graph,
        positions: Iterable[int],
        variables: Sequence[int],
        gradient: Sequence[torch.Tensor] | None,
        deadline: Deadline,
        *,
        proof: bool,
        run: Familiar | None = None,
        dear: Callable[[], object] = nothing,
    ) -> Decision | Declined:
        """What looking at some of the operations says, the others being smooth.

        Of a known program there is a `run`, whose plan knows of some that they have a rule, and
        nothing else to be looked at.
        """
        trace, found = graph.trace, Findings(dear)
        ruled: Mapping[int, Known] = _NO_RULES if run is None else run.plan.ruled
        for position in positions:
            if run is not None and position in run.plan.relus:
                count = _untouched_relu(run, position)
                if count is not None:
                    found.counts.append(count)
                    found.slopes[position] = True
                    continue
            op = trace.ops[position]
            deadline.ask("judging recorded values: operation {} of {}", position, len(trace.ops))
            known = ruled.get(position)
            if known is None:
                trouble = self._look.at(graph, position, op, found)
            else:
                trouble = self._look.for_kinks(graph, position, known, found)
            if trouble:
                return Declined(trouble, op)
        if not _ordered(graph, found):
            return Declined("the directions of two layers get in each other's way")
        found.sums = sums_of(graph.trace, None if run is None else run.plan.suspects)
        open_ = found.in_doubt or found.compared
        if open_ or found.sums:
            if open_ and found.settled:
                return Declined("a kink is touched that no bias settles")
            pending = Pending(graph, found, tuple(variables))
            waits = found.in_parts or found.compared or bool(found.sums) or _size(trace) > _EARLY
            if gradient is not None or not waits:
                return self.settle(pending, gradient, deadline, proof=proof)
            return Declined("the gradient decides", pending=pending)
        if not proof and run is not None and not found.settled:
            return self._as_before(run.plan, graph, found)
        return self._verdict(graph, found, tuple(variables), tuple(gradient or ()), proof=proof)

    def _as_before(self, plan: Plan, graph: Graph, found: Findings) -> Decision:
        """That nothing touched matters: step after step one and the same decision, mostly."""
        counted = tuple(
            [(c.op.index, c.op.func, c.elements, c.touched, c.choice) for c in found.counts]
        )
        if any(c.touch is not None or c.nonzero is not None for c in found.counts):
            return self._verdict(graph, found, (), (), proof=False)
        if plan.smooth is None or plan.counted != counted:
            found.counts = [_without_values(c) for c in found.counts]
            plan.counted = counted
            plan.smooth = self._verdict(graph, found, (), (), proof=False)
        return plan.smooth

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
        told = self.lossy.recall(graph.trace) if found.sums else None
        if told is not None:
            return told
        found.dear()
        analysis = analyse(graph.trace, self._registry, deadline)
        held = gradient
        if found.compared or found.in_parts:
            alike = gradient is not None and self._agrees(
                analysis, pending.variables, gradient, deadline
            )
            if found.compared and not alike:
                return Declined("autograd's formula for an operation holds for some programs only")
            held = None if alike else gradient
        if found.in_doubt:
            held = held if found.in_parts else None
            generator = torch.Generator().manual_seed(self._seed)
            if may_matter(analysis, pending.variables, held, generator, deadline):
                return Declined("a kink is touched that no bias settles")
        if found.sums:
            if gradient is None:
                return Declined("a sum may have lost terms, which the gradient tells")
            rest = (pending.variables, gradient, found.sums, deadline)
            lost = self.lossy.compare(analysis, *rest)
            if lost is not None:
                return lost
        return self._verdict(graph, found, pending.variables, tuple(gradient or ()), proof=proof)

    def compared(
        self,
        trace: Trace,
        variables: Sequence[int],
        gradient: Sequence[torch.Tensor],
        deadline: Deadline = UNLIMITED,
        *,
        proof: bool = True,
    ) -> Decision | Declined:
        """The same of a program with custom Functions that are vouched for, by its gradient."""
        found = self.decide(
            trace, variables, gradient, deadline, proof=proof, held=True, applied=True
        )
        if isinstance(found, Declined):
            return found
        inside = (c for c in found.counts if c.op.within is not None)
        if found.verdict is not Verdict.SMOOTH or any(c.touched for c in inside):
            return Declined("a kink is touched in a custom Function, or by a bias")
        analysis = analyse(trace, self._registry, deadline)
        if not self._agrees(analysis, variables, gradient, deadline):
            return Declined("a custom Function's own backward is to be judged")
        return found

    def _agrees(
        self,
        analysis: Analysis,
        variables: Sequence[int],
        gradient: Sequence[torch.Tensor],
        deadline: Deadline,
    ) -> bool:
        program = Program(analysis, variables, deadline=deadline)
        with torch.enable_grad():
            return self.vouched.agrees(analysis, program, gradient)

    def level(self, func: Any, dtype: torch.dtype) -> bool:
        """Whether a result of an operator keeps its value beside the point, off the ties."""
        return self._registry.keeps_value(func, dtype)

    def repeatable(self, func: Any) -> bool:
        """Whether an operator overload returns the same when it runs again."""
        return self._registry.repeatable(func)

    # ------------------------------------------------------------------ the verdict

    def _verdict(
        self,
        graph: Graph,
        found: Findings,
        variables: tuple[int, ...],
        gradient: tuple[torch.Tensor, ...],
        *,
        proof: bool,
    ) -> Decision:
        certificate = None
        if proof:
            slots = sorted(found.directions, key=lambda s: found.order[s])
            ran = Recording(graph.trace, variables)
            argument = Layered({s: found.directions[s] for s in slots})
            certificate = Certificate(ran, gradient, argument).sealed()
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


def _untouched_relu(run: Familiar, position: int) -> TouchCount | None:
    """The count of a ReLU of which signs are kept, if it is not touched, without its record."""
    node = run.retraced.nodes[position]
    output = node.kept_outputs.get(0)
    if node.zeros is None or node.zeros.numel() or output is None or not is_there(output):
        return None
    return TouchCount(run.retraced.structure.trace.ops[position], output.numel(), 0, 0)


def let_go(decision: Decision, repeatable: Callable[[Any], bool]) -> Decision:
    """A quick decision without the recorded values, which may be large.

    A certificate computes them again when it is verified.
    """
    certificate = decision.certificate
    if certificate is not None:
        ran = certificate.recording
        trace = without_values(ran.trace, repeatable)
        trace = replace(trace, externals=MappingProxyType(dict(trace.externals)))
        certificate = replace(certificate, program=Recording(trace, ran.variables))
    counts = decision.counts
    if any(c.touch is not None or c.op.bare() is not c.op for c in counts):
        counts = tuple(_without_values(c) for c in counts)
    elif certificate is decision.certificate:
        return decision
    return replace(decision, certificate=certificate, counts=counts)


def _without_values(count: TouchCount) -> TouchCount:
    op = count.op.bare()
    if op is count.op and count.touch is None:
        return count
    touch = None if count.touch is None else replace(count.touch, op=op)
    return replace(count, op=op, touch=touch)


def _ordered(graph: Graph, found: Findings) -> bool:
    """Whether every settled site depends on no direction that comes after its own."""
    for site in found.settled:
        maker = graph.maker(site.position, 0)
        own = found.order[site.slot]
        for slot, key in found.order.items():
            if key > own and slot not in site.neutral and graph.depends(maker, slot):
                return False
    return True
