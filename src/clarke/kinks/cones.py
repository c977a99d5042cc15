"""The Euclidean norm at zero: a kink whose pieces are linear forms ``u . v`` with ``|u| = 1``.

Near zero ``|v|`` is ``u . v`` with ``u = v / |v|``. In a branch of the program where ``v`` moves
along one line these are two pieces, as of an absolute value; where it moves in more dimensions
there is one for every direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from clarke.kinks.model import Call, Hazard, KinkRule, Touch
from clarke.kinks.singular import reduced_dims

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord


@dataclass(frozen=True)
class ConeRule(KinkRule):
    """A Euclidean norm with a linear form in its place where its argument is zero.

    The candidates of a kink are 0 and the entries of ``v``; a selection is their weights ``u``.

    Attributes:
        entries: Gives the vectors, one row for every element of the result.
        plain: The operation's own rule, which finds where the vectors are zero.
    """

    entries: Callable[[Call], torch.Tensor]
    plain: KinkRule
    by_weights: ClassVar[bool] = True

    def find(self, op: OpRecord) -> Touch:
        return cone_touch(self.plain.find(op), self)

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        v = self.entries(call)
        zero = torch.zeros(v.shape[0], dtype=torch.bool)
        zero[touch.elements] = True
        # In its place a constant: the slope of the norm of zero may be NaN.
        found = torch.where(zero[:, None], torch.ones_like(v), v).norm(dim=-1)
        return found.reshape(_shape(call))

    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        v = self.entries(call)[touch.elements]
        return torch.cat([torch.zeros_like(v[:, :1]), v], dim=1).reshape(-1)

    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        return self.candidates(call, touch)

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Positive is necessary; that v is a multiple of u must be known otherwise.
        each = self.candidates(call, touch) * choice.to(torch.float64)
        kinks = torch.arange(touch.count)
        return each.new_zeros(touch.count).index_add(0, touch.owner, each), kinks

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        squares = tangents.new_zeros(touch.count).index_add(0, touch.owner, tangents**2)
        lengths = squares.sqrt()[touch.owner]
        return torch.where(lengths > 0, tangents / lengths, torch.zeros_like(tangents))


def cone_rule(rule: KinkRule, touch: Touch) -> ConeRule | None:
    """The rule for a norm that is touched at zero and is Euclidean; None for other operations."""
    entries = _ENTRIES.get(touch.op.short_name)
    every = touch.hazards.get(Hazard.CONE)
    if entries is None or set(touch.hazards) != {Hazard.CONE} or every is None:
        return None
    if touch.op.short_name == "linalg_vector_norm":
        order = Call(touch.op.func, touch.op.args, touch.op.kwargs).arg(1, "ord", 2)
        if order is not None and float(order) != 2:
            return None
    return ConeRule(entries, rule) if every.numel() == touch.count else None


def cone_touch(touch: Touch, rule: ConeRule) -> Touch:
    """The same kinks with the entries of the vectors for candidates, AD's weights all at 0."""
    op = touch.op
    args = tuple(op.kept.get(i, a) for i, a in enumerate(op.args))
    with torch.no_grad():
        width = rule.entries(Call(op.func, args, op.kwargs)).shape[1] + 1
    weights = torch.zeros(touch.count, width, dtype=torch.float64)
    weights[:, 0] = 1.0
    return replace(
        touch,
        members=torch.arange(width).repeat(touch.count),
        owner=torch.arange(touch.count).repeat_interleave(width),
        weights=weights.reshape(-1),
        hazards={},
        base=torch.zeros(touch.base.numel(), dtype=torch.int64),
    )


def _shape(call: Call) -> torch.Size:
    with torch.no_grad():
        out: torch.Tensor = call.func(*call.args, **call.kwargs)
    return out.shape


def _norm(call: Call) -> torch.Tensor:
    return _rows(_real(call.args[0]), call, call.arg(2, "dim"), call.args[0].dim())


def _spread(call: Call) -> torch.Tensor:
    x = call.args[0]
    dims = reduced_dims(x, call.arg(1, "dim"))
    count = 1
    for d in dims:
        count *= x.shape[d]
    correction = call.kwargs.get("correction")
    free = count - (1 if correction is None else correction)
    centred = (x - x.mean(dims, keepdim=True)) / max(free, 0.0) ** 0.5
    return _rows(centred, call, call.arg(1, "dim"), x.dim())


def _rows(x: torch.Tensor, call: Call, dim: Any, rank: int) -> torch.Tensor:
    """The entries over the reduced dimensions (and what follows the first `rank`), by row."""
    if rank == 0:
        return x.reshape(1, -1)
    dims = [d % rank for d in reduced_dims(call.args[0], dim)]
    kept = [d for d in range(rank) if d not in dims]
    rest = list(range(rank, x.dim()))
    count = 1
    for d in kept:
        count *= x.shape[d]
    return x.permute(*kept, *dims, *rest).reshape(count, -1)


def _hypotenuse(call: Call) -> torch.Tensor:
    x, y = torch.broadcast_tensors(call.args[0], call.args[1])
    return torch.stack([x.reshape(-1), y.reshape(-1)], dim=1)


def _modulus(call: Call) -> torch.Tensor:
    return torch.view_as_real(call.args[0].resolve_conj()).reshape(-1, 2)


def _real(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


_ENTRIES = MappingProxyType(
    {
        "linalg_vector_norm": _norm,
        "std": _spread,
        "hypot": _hypotenuse,
        "abs": _modulus,
    }
)
