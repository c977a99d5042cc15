"""What is kept of the values of an operation, for the rules that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clarke.capture.live import Node
from clarke.capture.passing import Passing
from clarke.capture.signs import ZeroFinder, signs_tell
from clarke.capture.trace import Keep

if TYPE_CHECKING:
    import torch

    from clarke.capture.operators import Operator

EarlyLook = Callable[[Node, tuple[Any, ...], Any], object]


class Keeping(Passing):
    """Runs operations of which values are kept; arguments as of `Reading`."""

    _zeros: ZeroFinder
    _early: EarlyLook | None

    def _keep(
        self,
        node: Node,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: list[torch.Tensor],
        *,
        masked: bool,
        virtual: bool,
        whole: bool,
    ) -> Any:
        """Run an operation of whose values something may have to be kept."""
        keeps = operator.keep.of(kwargs.get("dtype"))
        signs = keeps is Keep.SIGNS and not kwargs and signs_tell(args[0])
        if signs:
            node.zeros = self._zeros.find(args[0])
        elif keeps is not Keep.NOTHING and not whole:  # where those jump, what made them knows
            self._keep_inputs(node, args, kwargs, written)
        try:
            out = operator.run(*args, **kwargs)
        except Exception as error:
            self._raised = error
            raise
        if keeps is Keep.VALUES:
            self._look(node, operator, args, out)
        kept = keeps is not Keep.NOTHING and not signs
        self._bind_outputs(node, operator, out, written, masked=masked, virtual=virtual, keeps=kept)
        if signs:
            # Also of an in-place ReLU: its result may be overwritten in turn, and is then copied.
            node.kept_outputs = {0: self._kept_value(node, out, [])}
        return out

    def _look(self, node: Node, operator: Operator, args: tuple[Any, ...], out: Any) -> None:
        """Note what can be seen of an operation's values only now."""
        if operator.draws:
            node.drawn = {i: args[i].detach().clone() for i in operator.written if i < len(args)}
        if self._early is not None and node.differentiated and not operator.written_names:
            node.early = self._early(node, args, out)
