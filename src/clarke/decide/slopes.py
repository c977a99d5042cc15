"""The slopes of a site's candidates and switching functions, and what rounding may have done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.decide.linear import require_room
from clarke.errors import ReplayError
from clarke.kinks.choices import ChoiceRule
from clarke.numerics import ERROR_SIZES, ROUNDING_MARGIN, SAMPLES, SPACINGS, UNIT
from clarke.steering import Errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from clarke.steering import Program, Site

    Array = NDArray[np.float64]


def differentiate(
    program: Program,
    site: Site,
    choices: Mapping[int, torch.Tensor],
    errors: Errors | None = None,
) -> tuple[Array, Array]:
    """Slopes of a site's candidates (M, n) and of its switching functions (levels, K, n).

    Args:
        program: The program.
        site: The site.
        choices: The selection of the earlier ones; AD's where silent.
        errors: Random errors to make, of the size of roundings.

    Raises:
        ReplayError: The errors lead out of a function's domain.
    """
    run = program.run(choices=choices, probe=True, errors=errors)
    probe = run.probes[site.position]
    size = sum(p.numel() for p in program.point)

    def each(values: torch.Tensor) -> Array:
        flat = values.reshape(-1)
        require_room(flat.numel(), size)
        out = np.zeros((flat.numel(), size))
        for i in range(flat.numel()):
            if not flat.requires_grad:
                break
            program.deadline.ask("differentiating {} of {} slopes", i, flat.numel())
            grads = torch.autograd.grad(
                flat[i], run.leaves, retain_graph=True, materialize_grads=True
            )
            out[i] = flatten(grads)
        return out

    candidates = each(probe.candidates)
    if isinstance(site.rule, ChoiceRule) or site.rule.by_weights:
        return candidates, np.zeros((0, site.touch.count, size))
    switching = each(probe.switching).reshape(-1, site.touch.count, size)
    return candidates, switching


def noise(
    program: Program,
    site: Site,
    choices: Mapping[int, torch.Tensor],
    found: tuple[Array, Array],
) -> tuple[Array, Array]:
    """How much of each entry of these slopes rounding in float64 may be.

    Found by making random errors, as `clarke.decide.rounding` does for gradients. Infinite where
    they lead out of a function's domain.
    """
    candidates, switching = (SPACINGS * UNIT * np.abs(part) for part in found)
    for seed in range(int(SAMPLES)):
        for size in ERROR_SIZES:
            try:
                moved = differentiate(program, site, choices, Errors(seed, size, double=True))
            except ReplayError:
                continue
            if all(bool(np.isfinite(part).all()) for part in moved):
                break
        else:
            return tuple(np.full_like(part, np.inf) for part in found)  # type: ignore[return-value]
        factor = float(ROUNDING_MARGIN) / size
        candidates, switching = (
            np.maximum(bound, factor * np.abs(other - part))
            for bound, other, part in zip((candidates, switching), moved, found, strict=True)
        )
    return candidates, switching
