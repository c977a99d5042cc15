"""Operations that are analytic except at named inputs where a slope is infinite or undefined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.kinks.model import Call, Hazard, Touch, UnsteeredRule
from clarke.numerics import NORM_AT_LIMIT, PROBABILITY_EXTREME, RANK_DEFICIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord


_NONE: Final = torch.zeros(0, dtype=torch.int64)
NEAR = 64.0  # roundings within which computed values count as equal


@dataclass(frozen=True, eq=False)
class Singular(Call):
    """A recorded call, with the positions of its differentiated arguments."""

    varied: frozenset[int] = frozenset()


def singular_touch(
    op: OpRecord, tests: tuple[tuple[Callable[[Singular], torch.Tensor], Hazard], ...]
) -> Touch:
    """The special elements of a recorded operation, by tests of one shape."""
    call = _recorded(op)
    with torch.no_grad():
        masks = [(torch.as_tensor(test(call)).reshape(-1), hazard) for test, hazard in tests]
        touched = torch.zeros(0, dtype=torch.bool)
        if masks:
            touched = torch.stack([m for m, _ in masks]).any(0)
        elements = touched.nonzero().squeeze(1)
    count = elements.numel()
    owner = torch.arange(count)
    hazards = {
        hazard: mask[elements].nonzero().squeeze(1) for mask, hazard in masks if bool(mask.any())
    }
    ones = torch.ones(count, dtype=torch.float64)
    base = torch.zeros(touched.numel(), dtype=torch.int8)
    return Touch(op, elements, elements, owner, ones, hazards, base)


def _recorded(op: OpRecord) -> Singular:
    args = tuple(op.kept.get(i, a) for i, a in enumerate(op.args))
    return Singular(op.func, args, op.kwargs, op.varied)


@dataclass(frozen=True)
class SingularRule(UnsteeredRule):
    """A rule that only says where the operation is not analytic.

    Attributes:
        special: Gives a boolean tensor, true where an input (or output) element is special.
        hazard: What it is there.
        more: Further tests with their hazards, for the same shape.
        complex_too: The tests hold for complex numbers as well.
        never: Says of what arguments no element is special, whatever its value.
    """

    special: Callable[[Singular], torch.Tensor]
    hazard: Hazard = Hazard.INFINITE_SLOPE
    more: tuple[tuple[Callable[[Singular], torch.Tensor], Hazard], ...] = ()
    complex_too: bool = False
    never: Callable[[Singular], bool] | None = None

    def speaks_for(self, op: OpRecord) -> bool:
        return self.complex_too or super().speaks_for(op)

    def places(self, op: OpRecord) -> tuple[int, torch.Tensor] | None:
        call = _recorded(op)
        if self.never is not None and self.never(call):
            return torch.as_tensor(call.args[0]).numel(), _NONE
        with torch.no_grad():
            masks = [torch.as_tensor(t(call)) for t in (self.special, *(m for m, _ in self.more))]
            if any(bool(mask.any()) for mask in masks):
                return None
        return masks[0].numel(), _NONE

    def find(self, op: OpRecord) -> Touch:
        return singular_touch(op, ((self.special, self.hazard), *self.more))


def first_is_zero(call: Singular) -> torch.Tensor:
    """Where the first argument is zero."""
    return torch.as_tensor(call.args[0] == 0)


def on_the_negative_axis(call: Singular) -> torch.Tensor:
    """Where a complex first argument is on the cut of the logarithm and of roots."""
    x = call.args[0]
    if not x.is_complex():
        return torch.zeros(x.shape, dtype=torch.bool)
    return torch.as_tensor((x.imag == 0) & (x.real < 0))


def first_is_plus_minus_one(call: Singular) -> torch.Tensor:
    """Where the first argument is 1 or -1."""
    return torch.as_tensor(call.args[0].abs() == 1)


def first_is_not_finite(call: Singular) -> torch.Tensor:
    """Where the first argument is NaN or infinite."""
    return ~torch.isfinite(call.args[0])


def power_is_natural(call: Singular) -> bool:
    """Whether a power is a polynomial."""
    return 1 not in call.varied and type(call.args[1]) is int and call.args[1] >= 0


def power_is_special(call: Singular) -> torch.Tensor:
    """Where the base is zero and the exponent is varied, or is no non-negative integer."""
    base, exponent = torch.as_tensor(call.args[0]), torch.as_tensor(call.args[1])
    if power_is_natural(call):
        return torch.zeros(base.shape, dtype=torch.bool)
    natural = (exponent >= 0) & (exponent == exponent.round())
    # A differentiated exponent needs log(base), which is infinite at zero.
    return (base == 0) & (~natural | (1 in call.varied))


def zero_to_the_zero(call: Singular) -> torch.Tensor:
    """Where a power of the number 0 jumps from 1 to 0."""
    exponent = call.args[1]
    return torch.as_tensor((exponent == 0) & (float(call.args[0]) == 0))


def both_are_zero(call: Singular) -> torch.Tensor:
    """Where both arguments are zero."""
    return torch.as_tensor((call.args[0] == 0) & (call.args[1] == 0))


def on_the_cut(call: Singular) -> torch.Tensor:
    """atan2: where the first argument is zero and the second negative."""
    return torch.as_tensor((call.args[0] == 0) & (call.args[1] < 0))


def logarithm_of_zero(call: Singular) -> torch.Tensor:
    """xlogy: where the second argument is zero."""
    x, y = (torch.as_tensor(a) for a in call.args[:2])
    return torch.as_tensor(torch.broadcast_tensors(x, y == 0)[1])


def logarithm_of_one_minus_one(call: Singular) -> torch.Tensor:
    """xlog1py: where the second argument is -1."""
    x, y = (torch.as_tensor(a) for a in call.args[:2])
    return torch.as_tensor(torch.broadcast_tensors(x, y == -1)[1])


def reduced_dims(x: torch.Tensor, dim: Any) -> list[int]:
    """The dimensions over which an operation reduces."""
    if dim is None:
        return list(range(x.dim()))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return dims or list(range(x.dim()))


def spread_is_zero(call: Singular) -> torch.Tensor:
    """Where the values over the reduced dimensions are all equal."""
    x = call.args[0]
    if x.dim() == 0:
        return torch.tensor(True)
    dims = reduced_dims(x, call.arg(1, "dim"))
    return torch.as_tensor(x.amax(dims) == x.amin(dims))


def _norm_order(call: Singular) -> float:
    order = call.arg(1, "ord", 2)
    return 2.0 if order is None else float(order)


def norm_of_zero(call: Singular) -> torch.Tensor:
    """Where a vector norm is taken of zero (of an order of 1 or more: others are not norms)."""
    x = call.args[0]
    if x.numel() == 0 or _norm_order(call) < 1:
        return torch.zeros_like(_has_zero_entry(call))
    dims = reduced_dims(x, call.arg(2, "dim"))
    return torch.as_tensor(x.abs().amax(dims) == 0) if x.dim() else x == 0


def norm_is_irregular(call: Singular) -> torch.Tensor:
    """Where the order is negative, or one that should have been lowered.

    For orders above 1 other than 2 a zero entry leaves the norm continuously differentiable.
    """
    zero, order = _has_zero_entry(call), _norm_order(call)
    smooth = (order > 1 and order != float("inf")) or 0 <= order < 1
    # Orders 1 and inf come here only where they could not be lowered.
    return torch.zeros_like(zero) if smooth else torch.ones_like(zero)


def norm_is_steep(call: Singular) -> torch.Tensor:
    """Where a norm of an order between 0 and 1 meets a zero entry."""
    zero = _has_zero_entry(call)
    return zero if 0 < _norm_order(call) < 1 else torch.zeros_like(zero)


def norm_counts(call: Singular) -> torch.Tensor:
    """Where the norm of order 0, which counts, meets a zero entry."""
    zero = _has_zero_entry(call)
    return zero if _norm_order(call) == 0 else torch.zeros_like(zero)


def _has_zero_entry(call: Singular) -> torch.Tensor:
    x = call.args[0]
    if x.numel() == 0:
        return torch.zeros(0, dtype=torch.bool)
    dims = reduced_dims(x, call.arg(2, "dim"))
    return (x == 0).to(torch.int8).amax(dims) > 0 if x.dim() else torch.as_tensor(x == 0)


def singular_values_meet(call: Singular) -> torch.Tensor:
    """One flag: some matrix has singular values that are equal or zero, up to rounding."""
    values = torch.linalg.svdvals(call.args[0])
    if values.numel() == 0:
        return torch.tensor(False)
    near = NEAR * torch.finfo(values.dtype).eps * values.shape[-1] * values[..., :1]
    gaps = values[..., :-1] - values[..., 1:]
    meet = (gaps <= near).any() | (values[..., -1:] <= near).any()
    return torch.as_tensor(meet)


def rank_is_deficient(call: Singular) -> torch.Tensor:
    """One flag: some matrix is not of full rank, or nearly so."""
    if not bool(torch.isfinite(call.args[0]).all()):
        return torch.tensor(True)
    values = torch.linalg.svdvals(call.args[0])
    if values.numel() == 0:
        return torch.tensor(False)
    return torch.as_tensor((values[..., -1] <= RANK_DEFICIENT * values[..., 0]).any())


def on_a_cell_border(call: Singular) -> torch.Tensor:
    """grid_sample: points of a differentiated grid on a border between cells.

    Bilinear and bicubic interpolation change their polynomial at whole pixel coordinates;
    reflection folds at whole ones or at halves.
    """
    grid, mode, padding = (call.args[i] for i in (1, 2, 3))
    if 1 not in call.varied or mode == 1:
        return torch.zeros(grid.shape[:-1], dtype=torch.bool)
    return _borders(call, halves=padding == 2, whole=True)


def between_neighbours(call: Singular) -> torch.Tensor:
    """grid_sample by the nearest pixel: points of a differentiated grid halfway between two."""
    grid, mode, padding = (call.args[i] for i in (1, 2, 3))
    if 1 not in call.varied or mode != 1:
        return torch.zeros(grid.shape[:-1], dtype=torch.bool)
    return _borders(call, halves=True, whole=padding == 2)


def _borders(call: Singular, *, halves: bool, whole: bool) -> torch.Tensor:
    x, grid, corners = (call.args[i] for i in (0, 1, 4))
    sizes = torch.tensor(x.shape[2:][::-1], dtype=grid.dtype)
    pixel = (grid + 1) / 2 * (sizes - 1) if corners else ((grid + 1) * sizes - 1) / 2
    near = NEAR * torch.finfo(grid.dtype).eps * (sizes + pixel.abs())
    bent = torch.zeros_like(grid, dtype=torch.bool)
    if whole:
        bent |= (pixel - pixel.round()).abs() <= near
    if halves:
        bent |= (pixel - pixel.floor() - 0.5).abs() <= near
    return bent.any(-1)


def at_the_threshold(call: Singular) -> torch.Tensor:
    """softplus: where it steps from its formula down to the identity, by exp(-threshold) / beta."""
    beta, threshold = call.arg(1, "beta", 1), call.arg(2, "threshold", 20)
    return torch.as_tensor(call.args[0] * beta == threshold)


def length_is_the_limit(call: Singular) -> torch.Tensor:
    """renorm: slices whose norm is the limit, up to rounding, or of an order other than 2."""
    x, order, dim, limit = (call.args[i] for i in range(4))
    others = [d for d in range(x.dim()) if d != dim % x.dim()]
    size = torch.linalg.vector_norm(x, order, others)
    if float(order) != 2:
        return torch.as_tensor(size >= limit * (1 - NORM_AT_LIMIT))
    near = NEAR * torch.finfo(x.dtype).eps * limit
    return torch.as_tensor((size - limit).abs() <= near)


def probability_is_extreme(call: Singular) -> torch.Tensor:
    """binary_cross_entropy: where the derivative, but not the value, is clamped."""
    x = call.args[0]
    return torch.as_tensor(x * (1 - x) <= PROBABILITY_EXTREME)


def kept_probability_is_extreme(call: Singular) -> torch.Tensor:
    """binary_cross_entropy_backward: where it is clamped."""
    x = call.args[1]
    return torch.as_tensor(x * (1 - x) <= PROBABILITY_EXTREME)


def is_repeated(call: Singular) -> torch.Tensor:
    """unique: entries that equal another one; how many results there are changes as they part."""
    x = call.args[0].reshape(-1)
    found, counts = x.unique(return_inverse=True, return_counts=True)[1:]
    return torch.as_tensor((counts > 1)[found].reshape(call.args[0].shape))


def has_repeats(call: Singular) -> torch.Tensor:
    """mode: rows with repeated values, whose most frequent value jumps when these part."""
    x = call.args[0]
    if x.dim() == 0:
        return torch.tensor(False)
    ordered = x.sort(call.arg(1, "dim", -1)).values
    return torch.as_tensor(
        (ordered.diff(dim=call.arg(1, "dim", -1)) == 0).any(call.arg(1, "dim", -1))
    )


def is_pole_of_polygamma(call: Singular) -> torch.Tensor:
    """polygamma: where the argument is 0 or a negative integer."""
    x = next(a for a in call.args if isinstance(a, torch.Tensor))
    return torch.as_tensor((x <= 0) & (x == x.round()))


def differences_are_counted(call: Singular) -> torch.Tensor:
    """Distances of order 0 count the entries that differ: one flag, some entries are equal."""
    pairs = call.func._schema.name.endswith("_pdist_forward")
    order = call.arg(1 if pairs else 2, "p", 2.0)
    left = call.args[0]
    if float(order) != 0 or left.numel() == 0:
        return torch.tensor(False)
    if pairs:
        first, second = torch.triu_indices(left.shape[0], left.shape[0], 1)
        return torch.as_tensor((left[first] == left[second]).any())
    return torch.as_tensor((left.unsqueeze(-2) == call.args[1].unsqueeze(-3)).any())
