"""Singular points and steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.kinks.samples import Sample


def _slopes() -> Iterator[Sample]:
    zero = ((0.0,),)
    for name in ("rsqrt", "reciprocal", "log", "log2", "log10"):
        yield Sample(f"{name}(x)", "x = 0", getattr(torch, name), zero)
    for name in ("acos", "asin"):
        yield Sample(f"{name}(x)", "x = -1", getattr(torch, name), ((-1.0,),))
    yield Sample("acosh(x)", "x = 1", torch.acosh, ((1.0,),))
    yield Sample("atanh(x)", "x = 1", torch.atanh, ((1.0,),))
    for power in (-1.0, 0.0, 1.0, 1.5, 2.0, 3.0):
        yield Sample(f"x ** {power:g}", "x = 0", lambda x, p=power: x**p, zero)
    yield Sample("x ** y", "x = 0, y = 2", lambda x, y: x**y, ((0.0,), (2.0,)))
    yield Sample("0 ** x", "x = 0", lambda x: 0.0**x, zero)
    yield Sample("abs(x) ** 0.5", "x = 0", lambda x: x.abs() ** 0.5, zero)
    yield Sample("abs(x) ** 1.5", "x = 0", lambda x: x.abs() ** 1.5, zero)
    yield Sample("xlogy(x, y)", "x = y = 0", torch.xlogy, ((0.0,), (0.0,)))
    yield Sample("xlogy(x, x)", "x = 0", lambda x: torch.xlogy(x, x), zero)
    yield Sample("special.xlog1py(x, y)", "x = 0, y = -1", torch.special.xlog1py, ((0.0,), (-1.0,)))
    yield Sample("special.entr(x)", "x = 0", torch.special.entr, zero)
    yield Sample("atan2(x, y)", "x = 0, y = -1", torch.atan2, ((0.0,), (-1.0,)))
    yield Sample("angle(x)", "x = 0", torch.angle, zero)
    yield Sample("logit(x, 0.1)", "x = 0.1", lambda x: torch.logit(x, 0.1), ((0.1,),))
    yield Sample("sqrt(clamp(x, min=0))", "x = 0", lambda x: x.clamp(min=0).sqrt(), zero)
    yield Sample("sqrt((x - 1) ** 2)", "x = 1", lambda x: ((x - 1) ** 2).sqrt(), ((1.0,),))
    yield Sample(
        "where(x > 0, sqrt(x), x)",
        "x = -1",
        lambda x: torch.where(x > 0, x.sqrt(), x),
        ((-1.0,),),
    )
    yield Sample(
        "where(x > 0, 1 / x, 0)",
        "x = 0",
        lambda x: torch.where(x > 0, 1 / x, torch.zeros_like(x)),
        zero,
    )
    yield Sample("where(x > 0, x, -x)", "x = 0", lambda x: torch.where(x > 0, x, -x), zero)
    yield Sample(
        "where(x > 0, x, 1)", "x = 0", lambda x: torch.where(x > 0, x, torch.ones_like(x)), zero
    )
    yield Sample("x * (x > 0)", "x = 0", lambda x: x * (x > 0), zero)
    yield Sample("x * (x >= 0)", "x = 0", lambda x: x * (x >= 0), zero)
    yield Sample("x[x > 0].sum()", "x = 0", lambda x: x[x > 0].sum() + 0 * x.sum(), ((0.0, 1.0),))
    yield Sample("masked_fill(x, x < 0, 0)", "x = 0", lambda x: x.masked_fill(x < 0, 0.0), zero)
    yield Sample("nan_to_num(x)", "x = 1", torch.nan_to_num, ((1.0,),))
    yield Sample("prod(x)", "x = (0, 0, 2)", torch.prod, ((0.0, 0.0, 2.0),))
    yield Sample("cumprod(x)", "x = (0, 0, 2)", lambda x: x.cumprod(0), ((0.0, 0.0, 2.0),))
    yield Sample("sinc(x)", "x = 0", torch.sinc, zero)
    yield Sample("softplus(x)", "x = 20", F.softplus, ((20.0,),))
    yield Sample("logaddexp(x, y)", "x = y", torch.logaddexp, ((1.0,), (1.0,)))


def _steps() -> Iterator[Sample]:
    yield Sample("sign(x)", "x = 0", torch.sign, ((0.0,),))
    yield Sample("sgn(x)", "x = 0", torch.sgn, ((0.0,),))
    yield Sample("x * sign(x)", "x = 0", lambda x: x * torch.sign(x), ((0.0,),))
    yield Sample(
        "copysign(x, 1)", "x = 0", lambda x: torch.copysign(x, torch.ones_like(x)), ((0.0,),)
    )
    yield Sample("fmod(x, 2)", "x = 2", lambda x: torch.fmod(x, 2.0), ((2.0,),))
    yield Sample("fmod(x, 2)", "x = 0", lambda x: torch.fmod(x, 2.0), ((0.0,),))
    yield Sample("remainder(x, 2)", "x = 2", lambda x: torch.remainder(x, 2.0), ((2.0,),))
    yield Sample("remainder(x, y)", "x = 3, y = 2", torch.remainder, ((3.0,), (2.0,)))
    yield Sample(
        "round(x, decimals=1)", "x = 0.25", lambda x: torch.round(x, decimals=1), ((0.25,),)
    )
    yield Sample(
        "div(x, 2, floor)", "x = 2", lambda x: torch.div(x, 2, rounding_mode="floor"), ((2.0,),)
    )
    yield Sample(
        "grid_sample(image, x)",
        "on a cell border",
        lambda x: F.grid_sample(
            torch.arange(9, dtype=x.dtype).reshape(1, 1, 3, 3) ** 2,
            x.reshape(1, 1, 1, 2),
            align_corners=True,
        ),
        ((0.0, 0.3),),
    )
    yield Sample(
        "grid_sample(x, grid)",
        "on a cell border",
        lambda x: F.grid_sample(
            x.reshape(1, 1, 2, 2), torch.zeros(1, 1, 1, 2, dtype=x.dtype), align_corners=True
        ),
        ((1.0, 2.0, 3.0, 4.0),),
    )
    yield Sample(
        "interpolate(x, 3, linear)",
        "corners aligned",
        lambda x: F.interpolate(x[None, None], 3, mode="linear", align_corners=True),
        ((1.0, 2.0),),
    )
    yield Sample(
        "pad(x, 1, reflect)", "any", lambda x: F.pad(x[None], (1, 1), mode="reflect"), ((1.0, 2.0),)
    )


def singular() -> Iterator[Sample]:
    """Infinite slopes, steps, masks."""
    yield from _slopes()
    yield from _steps()
