"""Look for NaN and infinity alone: nothing is recorded before a gradient is not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import GradientEdge

from clarke.audit.judge import alone, quietly
from clarke.audit.policy import OnWrong
from clarke.capture import all_finite
from clarke.capture.aside import Rest
from clarke.decide import Decision
from clarke.errors import InputError
from clarke.numerics import LOOKOUT_WALKS
from clarke.rerun import reached_leaves
from clarke.torch_others import is_opaque
from clarke.torch_private import is_transformed, node_number
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.audit.engine import BackwardCall
    from clarke.audit.stepping import OptimizerAside
    from clarke.capture import Recorder
    from clarke.report import Report

NOT_FINITE_ONLY = "Its gradient is finite; nothing else was looked at."
_WHERE = (
    "Nothing was recorded up to here, so that the operation is not known. The next backward call "
    "is judged; {again}"
)
_AGAIN = "to see where it arose in this one, run it again with every={} (--every) instead."
_FIRST = "to see where it arose in this one, run it again without."


class Lookout:
    """Keeps the recorder at rest for as long as gradients are finite, then for one call not.

    Args:
        on_nonfinite: What the audit was asked for.

    Raises:
        InputError: What cannot be done without a record.
    """

    def __init__(self, on_nonfinite: OnWrong | str | Callable[[Report], None] | None) -> None:
        if on_nonfinite is None or on_nonfinite in ("repair", OnWrong.REPAIR):
            given = getattr(on_nonfinite, "name", on_nonfinite)
            raise InputError(
                f"on_nonfinite is {given!r}, and only_nonfinite=True records nothing that could "
                'tell more. Use on_nonfinite="warn", "raise" or a function, or judge every call.'
            )
        self._rest: Rest | None = None
        self._stepping: OptimizerAside | None = None
        self._glance: Callable[[bool], None] = _nothing
        self._prepare: Callable[[], None] = _nothing
        self._made = 0
        self._calls = 0
        self._shape: tuple[object, ...] = ()
        self._leaves: tuple[torch.Tensor, ...] = ()

    def begin(
        self,
        recorder: Recorder,
        stepping: OptimizerAside,
        glance: Callable[[bool], None],
        prepare: Callable[[], None],
    ) -> None:
        """Rest from here on, without hooks on modules and optimizers.

        Args:
            recorder: What is to rest.
            stepping: What looks at the steps of optimizers.
            glance: Called with True where calls need no more than `passes`, else with False.
            prepare: Called before a call is recorded.
        """
        recorder.places.do_without_hooks()
        self._rest, self._stepping = Rest(recorder), stepping
        self._glance, self._prepare = glance, prepare
        self.after(recorded=True)

    def after(self, *, recorded: bool) -> None:
        """A call was made: if it was recorded and judged, rest again."""
        if recorded and self._rest is not None and self._stepping is not None:
            self._stepping.stop()
            self._rest.start()
            self._glance(True)

    def _reached(self, roots: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The leaves below some roots; as at the last look, where as many nodes were made since.

        Looking costs about as much as a small network's backward pass.
        """
        if len(roots) == 1 and (node := roots[0].grad_fn) is not None:
            made = node_number(node)
            shape: tuple[object, ...] = made - self._made, node.name()
        else:
            nodes = [x.grad_fn for x in roots]
            made = max([0 if n is None else node_number(n) for n in nodes])
            shape = (made - self._made, *[None if n is None else n.name() for n in nodes])
        self._made = made
        self._calls += 1
        if shape != self._shape or self._calls % int(LOOKOUT_WALKS) == 0:
            self._shape = shape
            found = {id(x): x for root in roots for x in reached_leaves(root)}
            self._leaves = tuple(found.values())
        return self._leaves

    def _record(self) -> None:
        """Record the next call."""
        if self._rest is not None and self._stepping is not None:
            self._glance(False)
            self._prepare()
            self._rest.stop()
            self._stepping.__enter__()

    def passes(
        self, result: Any, roots: Sequence[torch.Tensor], inputs: Any, *, accumulates: bool
    ) -> bool:
        """Whether all that a call made is finite.

        Args:
            result: What the engine returned.
            roots: What was differentiated.
            inputs: With respect to what; nothing for all leaves.
            accumulates: Whether it went to ``.grad``.
        """
        if is_transformed():
            return True  # nobody can look at a single gradient
        with quietly(), torch._C.DisableTorchFunction():
            found = result
            if accumulates:
                # Of an edge of the graph nobody knows the leaf.
                leaves = [x for x in inputs if type(x) is not GradientEdge] if inputs else None
                found = [x.grad for x in (self._reached(roots) if leaves is None else leaves)]
            return all_finite([g for g in found if g is not None and not is_opaque(g)])

    def look(
        self, call: BackwardCall, result: Any, number: int
    ) -> tuple[Decision, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]] | None:
        """A decision, gradients and leaves where a call's gradient is not finite; None where it is.

        Args:
            call: One that was made.
            result: What the engine returned.
            number: Of the call.
        """
        if is_transformed():
            return None
        with alone(draws=False):
            return self._looked_at(call, result, number)

    def _looked_at(
        self, call: BackwardCall, result: Any, number: int
    ) -> tuple[Decision, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]] | None:
        leaves = call.inputs or self._reached(call.roots)
        given = [x.grad for x in leaves] if call.accumulates else result
        pairs = zip(leaves, given, strict=True)
        found = [(x, g) for x, g in pairs if g is not None and not is_opaque(g)]
        if all_finite([g for _, g in found]):
            return None
        self._record()
        bad = [(x, g) for x, g in found if not all_finite([g])]
        before = "" if all_finite([x for x, _ in found]) else " A variable itself is not finite."
        valued = all_finite(call.roots)
        value = "" if valued else " Nor is what was differentiated."
        again = _AGAIN.format(number - 1) if number > 1 else _FIRST
        reason = (
            f"{len(bad)} of {len(found)} tensors have a gradient with NaN or infinity."
            f"{value}{before} {_WHERE.format(again=again)}"
        )
        decision = Decision(Verdict.NONFINITE, reason)
        return decision, tuple(g for _, g in found), tuple(x for x, _ in found)


def _nothing(_switch: bool = False) -> None:  # noqa: FBT001, FBT002 - as a switch is
    """Until an audit has begun."""
