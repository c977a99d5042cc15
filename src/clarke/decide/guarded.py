"""Operations whose slope is infinite or undefined somewhere, and what is said against that."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch


class Guard(NamedTuple):
    """What keeps an argument away from where a slope is not finite.

    Attributes:
        text: A line to copy, and what it does.
        words: What has to hold, for where the line is not enough.
        least: What the argument is raised to, given the type's eps; None for no bound.
        most: Likewise what it is lowered to.
        argument: Its position.
        harmless: What may be computed with instead where the result is not chosen.
        written: How the operation is written, with {} for the argument; by default as a call.
    """

    text: str
    words: str
    least: Callable[[torch.finfo], float] | None = None
    most: Callable[[torch.finfo], float] | None = None
    argument: int = 0
    harmless: float = 1.0
    written: str = ""


def _eps(kind: torch.finfo) -> float:
    return kind.eps


def _inner(kind: torch.finfo) -> float:
    return 1 - kind.eps


_SOFTMAX = Guard(
    "A row that is -inf throughout has no softmax: mask with torch.finfo(x.dtype).min instead of "
    "-inf.",
    "a row that is -inf throughout has no softmax: leave it an entry that is finite",
    lambda kind: kind.min,
)
_LOG = "it reads 0 or less: keep what it reads above 0"
_ARC = "its slope is infinite at -1 and 1: keep what it reads between these"
GUARDS: Mapping[str, Guard] = MappingProxyType(
    {
        "sqrt": Guard(
            "torch.sqrt(x.clamp_min(eps)) has slope 0 up to eps.",
            "its slope is infinite at 0: keep what it reads above 0",
            _eps,
        ),
        "rsqrt": Guard("torch.rsqrt(x.clamp_min(eps)) has slope 0 up to eps.", _LOG, _eps),
        "pow": Guard(
            "Keep the base away from 0: x.clamp_min(eps) ** p.",
            "its value or slope is infinite at 0: keep the base above 0",
            _eps,
            written="{} ** p",
        ),
        "log": Guard(
            "torch.log(x.clamp_min(eps)) is finite and has slope 0 up to eps.", _LOG, _eps
        ),
        "log2": Guard(
            "torch.log2(x.clamp_min(eps)) is finite and has slope 0 up to eps.", _LOG, _eps
        ),
        "log10": Guard(
            "torch.log10(x.clamp_min(eps)) is finite and has slope 0 up to eps.", _LOG, _eps
        ),
        "log1p": Guard(
            "torch.log1p(x.clamp_min(eps - 1)) is finite and has slope 0 up to eps - 1.",
            "it reads -1 or less: keep what it reads above -1",
            lambda kind: kind.eps - 1,
        ),
        "xlogy": Guard(
            "torch.xlogy(x, y.clamp_min(eps)) has a finite slope.", _LOG, _eps, argument=1
        ),
        "div": Guard(
            "Keep the denominator away from 0: a / b.clamp_min(eps) where b cannot be negative.",
            "it divides by 0: keep the denominator away from 0",
            _eps,
            argument=1,
            written="a / {}",
        ),
        "reciprocal": Guard(
            "Keep x away from 0: 1 / x.clamp_min(eps) where x cannot be negative.",
            "it divides by 0: keep the denominator away from 0",
            _eps,
            written="1 / {}",
        ),
        "acos": Guard(
            "torch.acos(x.clamp(-1 + eps, 1 - eps)) has slope 0 beyond.",
            _ARC,
            lambda kind: -_inner(kind),
            _inner,
            harmless=0.0,
        ),
        "asin": Guard(
            "torch.asin(x.clamp(-1 + eps, 1 - eps)) has slope 0 beyond.",
            _ARC,
            lambda kind: -_inner(kind),
            _inner,
            harmless=0.0,
        ),
        "atanh": Guard(
            "torch.atanh(x.clamp(-1 + eps, 1 - eps)) is finite.",
            _ARC,
            lambda kind: -_inner(kind),
            _inner,
            harmless=0.0,
        ),
        "acosh": Guard(
            "torch.acosh(x.clamp_min(1 + eps)) has slope 0 up to 1 + eps.",
            "its slope is infinite at 1: keep what it reads above 1",
            lambda kind: 1 + kind.eps,
            harmless=2.0,
        ),
        "_softmax": _SOFTMAX,
        "_log_softmax": _SOFTMAX,
        "exp": Guard("", "it overflows: subtract the maximum first"),
        "sinh": Guard("", "it overflows: keep what it reads small"),
        "cosh": Guard("", "it overflows: keep what it reads small"),
        "hypot": Guard("", "its slope at the origin is none: keep one argument away from 0"),
    }
)


# What is said of an operation that stands for several; the first that was written counts.
SAID: Mapping[str, str] = MappingProxyType(
    {
        "pow": "The power p of squares is torch.abs(x) ** (2 * p), or with a sum of squares "
        "torch.linalg.vector_norm(x, dim=...) ** (2 * p).",
        "stack": "The root of a sum of squares is torch.linalg.vector_norm(torch.stack((a, b)), "
        "dim=0), which has slope 0 at 0, a valid one.",
        "div": "The root of a mean of squares is torch.linalg.vector_norm(x) / x.numel() ** 0.5, "
        "which has slope 0 at 0, a valid one.",
        "linalg_vector_norm": "The root of a sum of squares is torch.linalg.vector_norm(x, "
        "dim=...), which has slope 0 at 0, a valid one.",
        "abs": "The root of a square is torch.abs(x), which has slope 0 at 0, a valid one.",
        "_log_softmax": "torch.log(torch.softmax(x, dim)) is torch.log_softmax(x, dim), which is "
        "finite.",
        "log_sigmoid_forward": "torch.log(torch.sigmoid(x)) is torch.nn.functional.logsigmoid(x), "
        "which is finite; with 1 - torch.sigmoid(x) inside it is logsigmoid(-x).",
        "logsumexp": "The log of a sum of exponentials is torch.logsumexp(x, dim), which is "
        "finite.",
        "logaddexp": "The log of a sum of two exponentials is torch.logaddexp(a, b), which is "
        "finite.",
        "softplus": "The log of 1 + exp(x) is torch.nn.functional.softplus(x), which is finite.",
        "sigmoid": "The quotient is torch.sigmoid(x), which is finite; with exp(-x) in the "
        "denominator, too.",
        "_softmax": "The quotient is torch.softmax(x, dim), which is finite.",
    }
)
