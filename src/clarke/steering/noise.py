"""Random relative errors in a replay: what rounding can do to a gradient, found by doing it.

Every floating point value that an operation reads, and every adjoint that it passes back, is
changed by a random number of the size of its rounding in the type that the program used there. The
errors of the elements of a sum stand for those of its partial sums, and the errors of each use of a
value for those of the uses. As for real roundings, equal values have equal errors in one operation:
a thousand equal terms do not cancel theirs. A part of the errors goes one way for all elements: a
mean that BatchNorm takes off is rounded once for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.capture import Ref
from clarke.devices import array_of
from clarke.numerics import RANDOM_BITS
from clarke.steering.roundoff import Units, additions
from clarke.torch_private import make_dual, unpack_dual

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord
    from clarke.kinks import Call
    from clarke.steering.roundoff import Part, Roundoffs

_SHIFT = np.array(20)  # low bits of a float64 that do not tell two values apart
_AGAIN = np.array(29)
_FIRST, _SECOND = 0x1F3D5B79A3C4E685, 0x2545F4914F6CDD1D  # odd, of random bits (a hash)
_MASK = (1 << 63) - 1


@dataclass(frozen=True)
class Errors:
    """Which errors to make.

    Attributes:
        seed: Of the random numbers.
        size: Multiple of a rounding; from it the effect of one rounding is extrapolated.
        double: Take all types for float64: the errors of a replay, not those of the program.
        signs: Turn the signs of adjoints at random instead, which adds up the terms of every
            entry without regard to their signs.
    """

    seed: int
    size: float = 1.0
    double: bool = False
    signs: bool = False


class Noise:
    """The errors of one replay; see the module."""

    def __init__(self, errors: Errors, sizes: Roundoffs) -> None:
        self._sizes = sizes
        self._errors = errors
        self._generator = torch.Generator().manual_seed(errors.seed)
        self._key = 0
        self._behind: _Behind | None = None

    def of(self, op: OpRecord, call: Call) -> Call:
        """An operation's call with errors in what it reads and in the adjoints that it returns."""
        part = self._sizes.of(op)
        if part.exact:
            return call
        many = additions(op, call)

        def put(reference: Any, value: Any) -> Any:
            if isinstance(reference, Ref):
                slot = reference.slot
                if not isinstance(value, torch.Tensor) or not _is_rounded(value):
                    return value
                if part.looks and slot not in part.copies:
                    return value
                if slot in part.targets:
                    self._write(self._sizes.units(op, slot, 1.0), value)
                    return value
                return self._apply(value, self._sizes.units(op, slot, many), forward=not part.looks)
            if isinstance(reference, (list, tuple)) and reference:
                found = [put(r, v) for r, v in zip(reference, value, strict=True)]
                return type(value)(found)
            return value

        args = tuple(put(r, v) for r, v in zip(op.args, call.args, strict=True))
        kwargs = {k: put(op.kwargs.get(k), v) for k, v in call.kwargs.items()}
        self._behind = None
        if part.whole is not None and any(a.requires_grad for a in args[: part.formulas]):
            self._behind = _Behind()
            behind = [_Added.apply(a, self._behind, i) for i, a in enumerate(args[: part.formulas])]
            args = (*behind, *args[part.formulas :])
        return type(call)(call.func, args, kwargs)

    def after(self, op: OpRecord, call: Call, out: Any) -> None:
        """Errors of derivative formulas in which digits cancel; see `cancelling`."""
        part, behind = self._sizes.of(op), self._behind
        if part.elementwise is None and behind is None:
            return
        result = out[0] if isinstance(out, (list, tuple)) else out
        if not isinstance(result, torch.Tensor) or not result.requires_grad:
            return
        error, value, whole = self._error_of_terms(part), result.detach(), part.whole
        if part.elementwise is not None:
            sizes = part.elementwise(value).nan_to_num(0.0, 0.0, 0.0)
            result.register_hook(lambda a: None if a is None else a * (1 + error(sizes)))
            return

        def found(adjoint: torch.Tensor | None) -> None:
            # None where the gradient of what follows is undefined: there is nothing to move.
            if behind is not None:
                behind.errors.clear()  # of an earlier backward pass
            if behind is not None and whole is not None and adjoint is not None:
                sizes = whole(call, value, adjoint.detach())
                for i, own in enumerate(sizes if isinstance(sizes, tuple) else (sizes,)):
                    behind.errors.append((i, error(own)))

        result.register_hook(found)

    def _error_of_terms(self, part: Part) -> Callable[[torch.Tensor], torch.Tensor]:
        """A rounding of each of some sizes; where signs are turned, the sizes themselves."""
        if self._errors.signs:
            return self._turned
        key = self._key = self._key + 2
        return self._rounding(key, part.result * self._errors.size, 0.0, 0.0)

    def _write(self, units: Units, target: torch.Tensor) -> None:
        """Errors in memory that the operation goes on to change."""
        if not (target.is_leaf and target.requires_grad) and not self._errors.signs:
            target.copy_(self._apply(target.clone(), units, forward=True))

    def _apply(self, value: torch.Tensor, units: Units, *, forward: bool) -> torch.Tensor:
        size = self._errors.size
        key = self._key = self._key + 2
        rest = (units.common * size, units.least * size)
        forward = forward and not self._errors.signs
        error = self._rounding(key, units.ahead * size, *rest)(value) if forward else None
        back = self._rounding(key + 1, units.back * size, *rest)
        if not value.requires_grad:
            plain, slope = unpack_dual(value)
            moved = plain if error is None else plain.detach() + error
            if slope is None:
                return moved
            # A tangent is rounded as an adjoint is.
            return make_dual(moved, slope if self._errors.signs else slope + back(slope))
        # A tensor of its own for each use, so that each use's adjoint has an error.
        found = value.clone() if error is None else value + error
        turned = self._turned

        def passed(adjoint: torch.Tensor | None) -> torch.Tensor | None:
            # Where the operation itself gives no gradient there is none to move.
            if adjoint is None:
                return None
            return turned(adjoint) if self._errors.signs else back(adjoint).add_(adjoint)

        found.register_hook(passed)
        return found

    def _turned(self, adjoint: torch.Tensor) -> torch.Tensor:
        signs = torch.randint(0, 2, adjoint.shape, generator=self._generator)
        return adjoint * (2 * signs - 1).to(adjoint.device)

    def _rounding(
        self, key: int, unit: float, common: float, least: float
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        mixed = ((self._errors.seed * _SECOND + key) * _FIRST) & _MASK
        # What an operation computes once for all elements, as a mean, is off for all alike.
        side = common if (mixed >> 40) & 1 else -common
        low, first, second = map(np.array, (mixed, _FIRST, _SECOND))
        scale, share, floor = map(np.array, (unit * RANDOM_BITS, side, least / unit))

        def rounded(value: torch.Tensor) -> torch.Tensor:
            if value.is_complex():
                return torch.view_as_complex(rounded(torch.view_as_real(value).contiguous()))
            plain = value.detach()
            if plain.dtype != torch.float64 or plain.is_neg():
                plain = plain.to(torch.float64).resolve_neg()
            if not plain.is_cpu:
                return _on_device(plain, mixed, unit, side, least)
            values = array_of(plain)
            if not values.ndim:
                return rounded(plain.reshape(1))[0]
            with np.errstate(all="ignore"):
                bits = values.view(np.int64) >> _SHIFT
                bits ^= low
                bits *= first
                bits ^= bits >> _AGAIN
                bits *= second
                error = bits * scale
                if least:
                    signs = np.sign(values)
                    signs *= floor
                    signs += values
                    error *= signs
                else:
                    error *= values
                sizes = np.abs(values)
                sizes *= share
                error += sizes
                if not np.isfinite(error.sum()):  # infinity is what it is: a mask
                    error[~np.isfinite(values)] = 0
            return torch.from_numpy(error)

        return rounded


def _on_device(
    value: torch.Tensor, mixed: int, unit: float, side: float, least: float
) -> torch.Tensor:
    """The same by torch, where the values are; few of them take NumPy a quarter of the time."""
    bits = value.view(torch.int64) >> int(_SHIFT)
    bits = bits.bitwise_xor_(mixed).mul_(_FIRST)
    bits = bits.bitwise_xor_(bits >> int(_AGAIN)).mul_(_SECOND)
    error = bits.to(torch.float64).mul_(unit * RANDOM_BITS)
    error *= value + value.sign() * (least / unit)
    error += side * value.abs()
    return torch.where(value.isfinite(), error, 0.0)  # infinity is what it is: a mask


class _Behind:
    """Errors that an operation's derivative leaves, known once its result's adjoint is."""

    def __init__(self) -> None:
        self.errors: list[tuple[int, torch.Tensor]] = []  # with the number of the argument


class _Added(torch.autograd.Function):
    """A value whose adjoint has errors added to it."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, behind: _Behind, number: int) -> torch.Tensor:
        ctx.behind, ctx.number = behind, number
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, *adjoints: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        found = adjoints[0]
        for number, error in ctx.behind.errors:
            if number == ctx.number:
                found = found + error
        return found, None, None


def _is_rounded(value: torch.Tensor) -> bool:
    """Whether it holds results of arithmetic: a sparse matrix is a constant, as it was given."""
    floating = value.is_floating_point() or value.is_complex()
    return floating and value.layout is torch.strided
