"""Whether a program's values depend on its variables in ways that its record does not show.

Memory that is read past the dispatcher (inference mode, dlpack, `data_ptr`), and variables that are
rewritten before they are used (``nn.Embedding(max_norm=...)``), leave constants in the record. Run
beside the point, the record and the program then have different values: far beside it, so that
coarse types show that too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from clarke.constraints import random_tangents
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.detached import held_constant
from clarke.decide.model import Decision
from clarke.decide.sober import sober_adjoints
from clarke.decide.tolerance import coarsest_epsilon, peak
from clarke.errors import ReplayError
from clarke.numerics import UNSEEN_RAYS, UNSEEN_ROUNDINGS, UNSEEN_SHARE, UNSEEN_STEP
from clarke.steering import Pieces, Program
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Value = Callable[[Sequence[torch.Tensor]], float]


def judge_unseen(
    decision: Decision,
    variables: Sequence[int],
    value: Value,
    deadline: Deadline = UNLIMITED,
) -> Decision:
    """UNDECIDED in place of a positive verdict on a record that does not describe the program.

    Args:
        decision: A verdict.
        variables: Slots of the variables.
        value: The function itself at another point.
        deadline: When to give up.
    """
    analysis = decision.analysis
    if analysis is None or not decision.verdict.correct or not variables:
        return decision
    trace = analysis.trace
    drawn = any(
        torch.Tag.nondeterministic_seeded in getattr(op.func, "tags", ())
        for op in analysis.recorded.ops
    )
    if drawn or held_constant(trace):
        return decision  # it may draw other numbers, or is told of elsewhere
    try:
        program = Program(analysis, variables, deadline=deadline)
        apart = sum(_differs(program, value, seed) for seed in range(int(UNSEEN_RAYS)))
    except (ReplayError, RuntimeError, ValueError, ArithmeticError):
        return decision  # not defined there
    if apart < UNSEEN_SHARE * UNSEEN_RAYS:
        return decision
    return Decision(
        Verdict.UNDECIDED,
        f"{decision.verdict.so_far}, but beside the point the recorded operations give "
        "other values than the function: it depends on its variables in a way that autograd does "
        "not see (values taken under torch.inference_mode, by dlpack or data_ptr; a variable that "
        "is rewritten before it is used, as by max_norm of an embedding).",
        analysis=analysis,
        relevance=decision.relevance,
    )


def _differs(program: Program, value: Value, seed: int) -> bool:
    """Whether the record and the function have different values at one point beside."""
    epsilon = coarsest_epsilon(program.analysis.trace)
    direction = random_tangents(program, torch.Generator().manual_seed(seed))
    step = UNSEEN_STEP * epsilon**0.25
    size = peak(program.point)
    moved = [
        # Numbers that the program's own type has: what it would round is no difference.
        (p + step * max(size, step) * d)
        .to(program.analysis.trace.externals[program.variables[i]].tensor.dtype)
        .to(program.dtype)
        for i, (p, d) in enumerate(zip(program.point, direction, strict=True))
    ]
    run = program.run(moved, pieces=Pieces.NATURAL)
    tensors = {s: t.detach() for s, t in run.tensors.items() if t.is_floating_point()}
    _, adjoints = sober_adjoints(program, run)
    sizes = [float(t.norm()) for t in tensors.values()]
    # What comes after may make more of a rounding: ``acos`` near one.
    sizes += [float((a * tensors[s]).norm()) for s, a in adjoints.items() if s in tensors]
    expected, found = float(run.output.detach()), value(moved)
    if not (math.isfinite(expected) and math.isfinite(found)):
        return False
    return abs(expected - found) > UNSEEN_ROUNDINGS * epsilon * max(sizes, default=1.0)
