"""Points that selections cannot express: steps, infinite slopes, unknown and custom operations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch

from clarke.capture import Origin, input_slots, refilled, without_values
from clarke.constraints.reads import behind_reads, held_positions, is_float
from clarke.deadline import rung
from clarke.decide.model import Culprit, Decision, culprit_of
from clarke.decide.settle import steep_beside, steep_on_axes
from clarke.decide.vectors import used_vectors
from clarke.kinks import Hazard, default_registry
from clarke.kinks.embeddings import is_scaled
from clarke.kinks.functions import FunctionRule, misdeclared
from clarke.kinks.smooth import OpClass, classify
from clarke.steering import Analysis, Program, Site
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from clarke.capture import OpRecord, Trace
    from clarke.constraints import Relevance
    from clarke.deadline import Deadline
    from clarke.decide.settle import Steep
    from clarke.kinks import KinkRule, Registry, Touch


A_BRANCH: Final = "a Python branch depends on a comparison at an exact tie"


def obstacle(analysis: Analysis, *, sees_values: bool, held: bool = False) -> Decision | None:
    """A verdict that needs no gradient: something on the way cannot be judged at all.

    Args:
        analysis: The trace and its kinks.
        sees_values: The verdict will be held against values of the program itself.
        held: Who asks selects the side that ran at ties on which a branch rests (`held_sides`).
    """
    trace = analysis.trace
    declared = _declared(analysis)
    if declared is not None:
        return declared
    for e in trace.externals.values():
        if e.origin is Origin.UNSEEN:
            culprit = Culprit(e.name, e.location, "computed before clarke was watching")
            return Decision(
                Verdict.UNDECIDED,
                f"A tensor read at {e.location} was computed out of clarke's sight ({e.name}). "
                "Compute it inside the function given to clarke.check, or inside the audit.",
                culprits=(culprit,),
                analysis=analysis,
            )
    for e in trace.externals.values():
        if e.cut_by and not may_be_constant(e.cut_by):
            why = "autograd takes its result for a constant although its input is differentiated"
            return Decision(
                Verdict.UNDECIDED,
                f"{e.cut_by} at {e.location}: {why}. Detach its input to say that this is meant.",
                culprits=(Culprit(e.cut_by, e.location, why),),
                analysis=analysis,
            )
    for op in trace.ops:
        if op.hidden_write:
            return Decision(
                Verdict.UNDECIDED,
                f"{op.func} at {op.location} changed a differentiated tensor while gradients were "
                "switched off, so autograd differentiates another function than the one computed.",
                culprits=(Culprit(str(op.func), op.location, "hidden in-place write"),),
                analysis=analysis,
            )
    for site in analysis.ordered():
        if isinstance(site.rule, FunctionRule):
            op = site.touch.op
            why = misdeclared(op, site.rule)
            if why:
                return Decision(
                    Verdict.UNDECIDED,
                    f"{op.shown} at {op.location} {why}. Correct what clarke.register_function "
                    "was told.",
                    culprits=(Culprit(op.shown, op.location, why),),
                    analysis=analysis,
                )
    unknown = [op for op in analysis.unknown if matters(op, analysis.trace)]
    if unknown:
        names = ", ".join(dict.fromkeys(f"{op.name} at {op.location}" for op in unknown[:4]))
        return Decision(
            Verdict.UNDECIDED,
            f"clarke does not know {names}. Teach it with clarke.register_kink, "
            "or rewrite with operations it knows (`clarke ops` lists them).",
            culprits=tuple(Culprit(op.shown, op.location, "unknown operation") for op in unknown),
            analysis=analysis,
        )
    return _tied_decisions(analysis, sees_values=sees_values, held=held)


def writes_shown(trace: Trace, registry: Registry, deadline: Deadline) -> Trace | None:
    """The function that was computed, where something was written while gradients were off.

    ``F.cosine_similarity`` clamps a norm so. Autograd knows nothing of the write; whether its
    gradient is right for the function computed all the same is a question like any other. None
    where nothing was written, or in a way that cannot be repeated.
    """
    hidden = [op for op in trace.ops if op.hidden_write]
    if not hidden or not all(op.args for op in hidden):
        return None
    ops = tuple(
        replace(op, hidden_write=False, differentiated=True, varied=frozenset({0}))
        if op.hidden_write
        else op
        for op in trace.ops
    )
    shown = without_values(replace(trace, ops=ops), registry.repeatable)
    return refilled(shown, registry.keeps, deadline)


def _another_derivative(op: OpRecord) -> str:
    """Which derivative PyTorch declares for an operation in place of its own; empty if none."""
    if is_scaled(op):
        return "divides gradients by how often a row was read (scale_grad_by_freq)"
    if op.differentiated and "fake_quantize" in op.short_name:
        return "rounds to the levels of an integer type and passes gradients straight through"
    return ""


def _declared(analysis: Analysis) -> Decision | None:
    """SURROGATE where the program's author declares another derivative than the function's."""
    trace = analysis.trace
    for e in trace.externals.values():
        if e.origin is Origin.CUSTOM_FUNCTION:
            name = e.name.removesuffix("Backward")
            culprit = Culprit(name, e.location, "custom autograd.Function")
            kind = getattr(e.tensor.grad_fn, "_forward_cls", None)
            if default_registry().is_surrogate(kind):
                return Decision(
                    Verdict.SURROGATE,
                    f"{name} at {e.location} is a custom autograd.Function with a derivative of "
                    "its own: declared so by its author (register_function).",
                    culprits=(culprit,),
                    analysis=analysis,
                )
            return Decision(
                Verdict.UNDECIDED,
                f"{name} at {e.location} is a custom autograd.Function that does not compute its "
                "result with PyTorch's operations, so that clarke cannot compare its backward with "
                "it. Declare its pieces with clarke.register_function to have it judged, or say "
                "surrogate=True there.",
                culprits=(culprit,),
                analysis=analysis,
            )
    for op in analysis.recorded.ops:
        why = _another_derivative(op)
        if why:
            return Decision(
                Verdict.SURROGATE,
                f"{op.shown} at {op.location} {why}: it declares a derivative of its own.",
                culprits=(Culprit(op.shown, op.location, why),),
                analysis=analysis,
            )
    return None


def may_be_constant(name: str) -> bool:
    """Whether an operation is meant to give constants: detach, factories, random numbers."""
    if name.startswith(("aten::detach", "aten::alias")):
        return True
    return classify(name) in (OpClass.CONSTANT, OpClass.RANDOM, OpClass.DISCRETE)


def may_jump(rule: KinkRule, touch: Touch, trace: Trace) -> bool:
    """Whether the results of an operation on constants depend on the side of what it touches."""
    results = [trace.slot_dtypes.get(s) for s in touch.op.outputs if s is not None]
    whole = all(d is not None and d.is_floating_point for d in results)
    return rule.by_value or bool(touch.hazards) or not whole


def matters(op: OpRecord, trace: Trace) -> bool:
    """Whether an unknown operation stands in the way: of masks and integers alone none does."""
    if op.differentiated:
        return True
    dtypes = trace.slot_dtypes
    return any(dtypes[s].is_floating_point for s in input_slots(op) if s in dtypes)


def _tied_decisions(analysis: Analysis, *, sees_values: bool, held: bool) -> Decision | None:
    """Branches, indices and detached comparisons that were decided at an exact tie."""
    used = {slot for op in analysis.trace.ops for slot in input_slots(op)}
    # A shape that matters shows in the program's values, where they are looked at.
    branch = behind_reads(analysis, shapes=not sees_values)
    sides = held_positions(analysis) if held else frozenset()
    for position, site in sorted(analysis.sites.items()):
        touch, op = site.touch, site.touch.op
        if touch.count == 0:
            continue
        why = ""
        kept = position in sides
        read = position in branch and op.outputs and not is_float(analysis, op.outputs[0])
        if read and not kept:
            why = A_BRANCH
        elif not op.differentiated and may_jump(site.rule, touch, analysis.trace):
            why = "a comparison of detached values is at an exact tie"
        elif not kept and any(_is_index(analysis, s) and s in used for s in op.outputs):
            why = "an index that a tie decides is used by other operations"
        if why:
            return not_followed(analysis, site, why)
    return _written_steps(analysis)


def not_followed(analysis: Analysis, site: Site, why: str) -> Decision:
    """UNDECIDED at a tie whose other side is another program."""
    op = site.touch.op
    return Decision(
        Verdict.UNDECIDED,
        f"{op.shown} at {op.location}: {why}; clarke cannot follow the other side.",
        culprits=(culprit_of(site.touch, why),),
        analysis=analysis,
    )


def _written_steps(analysis: Analysis) -> Decision | None:
    """Whole numbers of a step at its jump that are written into memory: they have no other side."""
    jumps: dict[int, Culprit] = {}
    why = "jumps here, and what is made of it is written into memory as whole numbers"
    for position, op in enumerate(analysis.trace.ops):
        read = list(input_slots(op))
        source = next((jumps[s] for s in read if s in jumps), None)
        site = analysis.sites.get(position)
        if source is None and site is not None and Hazard.STEP in site.touch.hazards:
            source = culprit_of(site.touch, why)
        if source is None:
            continue
        if op.short_name.endswith("_") and read and not is_float(analysis, read[0]):
            return Decision(
                Verdict.UNDECIDED,
                f"{source} ({op.shown} at {op.location}); clarke cannot follow the other side.",
                culprits=(source,),
                analysis=analysis,
            )
        jumps.update((out, source) for out in op.outputs if out is not None)
    return None


def _is_index(analysis: Analysis, slot: int | None) -> bool:
    dtype = analysis.trace.slot_dtypes.get(slot) if slot is not None else None
    if dtype is None or dtype.is_floating_point or dtype.is_complex:
        return False
    return dtype != torch.bool


@rung("looking at steps and infinite slopes")
def judge_hazards(
    program: Program, relevance: Relevance, generator: torch.Generator
) -> Decision | None:
    """A verdict where a relevant touched point is out of reach of selections."""
    if relevance.lost_masks:
        op = relevance.lost_masks[0]
        steep = steep_beside(program, generator)
        if steep is not None:
            step = Culprit(op.shown, op.location, "reads a comparison or sign at its jump")
            return not_lipschitz(program, relevance, (step,), steep)
        return Decision(
            Verdict.UNDECIDED,
            f"A comparison at an exact tie feeds {op.shown} at {op.location}, through which "
            "clarke cannot follow it. Use torch.where or a multiplication with the mask.",
            culprits=(Culprit(op.shown, op.location, "reads a tied comparison"),),
            analysis=program.analysis,
            relevance=relevance,
        )
    if not relevance.hazards:
        return _flipping_vectors(program, relevance, generator)
    culprits = _culprits(program, relevance)
    kinds = set(relevance.hazards)
    jumping = bool(kinds & {Hazard.STEP, Hazard.INFINITE_SLOPE})
    jumping = jumping or used_vectors(program.analysis) is not None
    steep = steep_beside(program, generator) if jumping else None
    if steep is None and Hazard.INFINITE_SLOPE in kinds:
        steep = steep_on_axes(program, generator)
    if steep is not None:
        return not_lipschitz(program, relevance, culprits, steep)
    return Decision(
        Verdict.UNDECIDED,
        f"{culprits[0]}. clarke has no complete description of the gradients around such a point.",
        culprits=culprits,
        analysis=program.analysis,
        relevance=relevance,
    )


def edge_of_domain(
    program: Program, relevance: Relevance, generator: torch.Generator
) -> Decision | None:
    """NOT_LIPSCHITZ where an operation refuses the points on one side."""
    steep = steep_beside(program, generator, edges=True)
    if steep is None:
        return None
    return not_lipschitz(program, relevance, _culprits(program, relevance), steep)


def not_lipschitz(
    program: Program,
    relevance: Relevance | None,
    culprits: tuple[Culprit, ...],
    steep: Steep,
) -> Decision:
    """NOT_LIPSCHITZ by what values beside the point show, with the first culprit's words."""
    return Decision(
        Verdict.NOT_LIPSCHITZ,
        f"{culprits[0]}. {steep}, so there is no Clarke subdifferential here.",
        culprits=culprits,
        analysis=program.analysis,
        relevance=relevance,
    )


def _flipping_vectors(
    program: Program, relevance: Relevance, generator: torch.Generator
) -> Decision | None:
    """Vectors whose sign flips beside the point, in a program that sees their sign."""
    op = used_vectors(program.analysis)
    if op is None:
        return None
    steep = steep_beside(program, generator)
    if steep is None or steep.jump == 0:
        return None
    culprit = Culprit(op.shown, op.location, "its vectors or their order jump here")
    return not_lipschitz(program, relevance, (culprit,), steep)


# Hazards at which the operation's value is still Lipschitz continuous.
LIPSCHITZ: Final = frozenset({Hazard.CONE, Hazard.SEVERAL, Hazard.FORMULA})


def _culprits(program: Program, relevance: Relevance) -> tuple[Culprit, ...]:
    found = []
    for hazard, kinks in relevance.hazards.items():
        found += [
            culprit_of(program.analysis.site_of(kink).touch, hazard.value)
            for kink in kinks[:4].tolist()
        ]
    return tuple(dict.fromkeys(found))
