"""What every verification begins with: the program again, from its recorded operations alone."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from clarke.capture import Origin, input_slots, refilled, without_values
from clarke.constraints import resolve
from clarke.decide.hazards import obstacle
from clarke.errors import ClarkeError, OutOfTimeError, in_a_line
from clarke.kinks import default_registry
from clarke.kinks.smooth import OpClass, classify
from clarke.steering import Program, analyse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from clarke.capture import Trace
    from clarke.deadline import Deadline

# What a program that was tampered with may raise when it runs.
_FAILURES = (
    ClarkeError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Defect(Exception):  # noqa: N818 - what is wrong with a proof, not with the program
    """Why a certificate does not hold; its text goes into `defects`."""


@contextlib.contextmanager
def as_defects(found: list[str]) -> Iterator[None]:
    """Collect what makes a certificate fail: a `Defect`, or a program that cannot run.

    Raises:
        OutOfTimeError: The deadline passed; nothing is said of the certificate then.
    """
    try:
        yield
    except OutOfTimeError:
        raise
    except Defect as error:
        found.append(str(error))
    except _FAILURES as error:
        found.append(f"the program cannot be judged again: {in_a_line(error)}")


def rebuilt(
    trace: Trace, variables: Sequence[int], deadline: Deadline, *, held: bool = False
) -> Program:
    """The program of a trace, from its operations and what they read alone.

    Args:
        trace: What ran.
        variables: External slots of the variables.
        deadline: Of the verification.
        held: The proof selects the sides that ran where branches of Python rest on ties.

    Raises:
        Defect: Something in it is out of reach of any proof.
    """
    _check_flags(trace, variables)
    registry = default_registry()
    again = refilled(without_values(trace, registry.repeatable), registry.keeps)
    analysis = resolve(analyse(again, registry, deadline), registry, variables)
    blocked = obstacle(analysis, sees_values=True, held=held)
    if blocked is not None:
        raise Defect(f"the program is out of reach: {blocked.reason}")
    return Program(analysis, variables, deadline=deadline)


def _check_flags(trace: Trace, variables: Sequence[int]) -> None:
    """Whether variables, and operations on differentiated values, are recorded as such.

    Kinks are looked for at those only. What the program detached stands in a trace as a tensor that
    it read, so that only operations with integer or truth values may cut a path.
    """
    leaves = {slot for slot, e in trace.externals.items() if e.origin is Origin.LEAF}
    if len({*variables}) != len(variables) or not leaves.issuperset(variables):
        raise Defect("a variable is named twice, or recorded as what does not vary")
    # What depends on other leaves only is a constant to these variables, unless memory is shared.
    own = {trace.externals[v].storage for v in variables}
    live = {s for s in leaves if s in variables or trace.externals[s].storage in own}
    for op in trace.ops:
        read = live.intersection(input_slots(op))
        if not read:
            continue
        results = [s for s in op.outputs if s is not None]
        if op.differentiated:
            # No path goes through whole numbers: `argmax().float()` is a constant.
            live.update(s for s in results if _is_real(trace.slot_dtypes.get(s)))
        # No derivative comes through a mask that is cast to numbers.
        elif (
            classify(op.name) not in (OpClass.CONSTANT, OpClass.DISCRETE)
            and any(trace.slot_dtypes[s].is_floating_point for s in results)
            and any(trace.slot_dtypes[s].is_floating_point for s in read)
        ):
            raise Defect(f"{op.shown} reads differentiated values, but is recorded as constant")


def _is_real(dtype: torch.dtype | None) -> bool:
    return dtype is None or dtype.is_floating_point or dtype.is_complex
