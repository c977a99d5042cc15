"""Whether the two sides of a tied comparison agree all along the surface of the tie.

``(x + y * y) * (x > 0)`` is continuous at the origin and agrees with zero to first order, but jumps
by ``y * y`` where x = 0 beside it. Both sides and the compared difference are analytic, so one
random point of the surface tells: an analytic difference that is not identically zero there is zero
at it with probability zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.kinks.steps import ComparisonRule
from clarke.numerics import ON_SURFACE, SIDES_APART, SIDES_LEFT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clarke.steering import Program, Run
    from clarke.steering.uses import MaskUse

_MOST = 16  # comparisons looked at; their surfaces are visited one by one
_NEWTON = 6
_SLACK = 100.0
_FAR = 1e3  # what is larger by less drowns nothing


def jumps_beside(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    start: Sequence[torch.Tensor],
    skip: torch.Tensor,
    sizes: Sequence[float],
) -> torch.Tensor:
    """(count,) comparisons whose sides differ somewhere on the surface of their tie.

    Args:
        program: The program.
        weights: Mixtures of the other kinks, by site position.
        start: A random point near the program's own, from which the surface is approached.
        skip: (count,) kinks that need no look.
        sizes: The usual size of what masks pick from, use by use: a difference far below it may be
            what Newton's method has left.
    """
    found = torch.zeros(program.analysis.count, dtype=torch.bool)
    sites = program.analysis.sites
    # One of each operation first: elements of one operation are mostly alike.
    ties: list[tuple[int, int, int]] = []
    for position, site in sites.items():
        if isinstance(site.rule, ComparisonRule):
            left = (~skip[site.first : site.first + site.touch.count]).nonzero().squeeze(1)
            ties += [(n, position, i) for n, i in enumerate(left[:_MOST].tolist())]
    for _, position, i in sorted(ties)[:_MOST]:
        kink = sites[position].first + i
        for near, usual in _starts(program, weights, start, position, i, sizes):
            there = _run_on_surface(program, weights, near, position, i)
            if there is not None and _sides_differ(*there, kink, usual):
                found[kink] = True
                break
    return found


def _starts(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    start: Sequence[torch.Tensor],
    position: int,
    number: int,
    sizes: Sequence[float],
) -> Iterator[tuple[Sequence[torch.Tensor], Sequence[float]]]:
    """Points from which a surface is approached, with the usual sizes of what masks pick from.

    The second, where it differs, moves only what the tie and its sides' difference depend on: large
    terms that both sides share drown it, and are as large as at the program's own point there.
    """
    yield start, sizes
    kink = program.analysis.sites[position].first + number
    run = program.run(start, weights=weights, probe=True)
    total = run.probes[position].switching.reshape(-1)[number]
    for use in run.mask_uses:
        if use.difference is not None:
            own = use.difference[use.kink == kink]
            total = total + (own * torch.rand(own.shape, dtype=own.dtype, generator=_fixed())).sum()
    if not total.requires_grad:
        return
    grads = torch.autograd.grad(total, run.leaves, retain_graph=True, materialize_grads=True)
    if all(bool((g != 0).all()) for g in grads):
        return
    near = tuple(
        torch.where(g != 0, s, p) for g, s, p in zip(grads, start, program.point, strict=True)
    )
    beside = program.run(near, weights=weights, probe=True, grad=False)
    usual = [_scale_of(u, kink) if u.difference is not None else 1.0 for u in beside.mask_uses]
    if any(one * _FAR < other for one, other in zip(usual, sizes, strict=True)):
        yield near, usual


def _fixed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _run_on_surface(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    start: Sequence[torch.Tensor],
    position: int,
    kink: int,
) -> tuple[Run, float] | None:
    """A replay at a point where one compared difference vanishes, by Newton's method.

    With it, what is left of the difference, relative to that at the start.
    """
    point, first = list(start), 0.0
    for _ in range(_NEWTON):
        run = program.run(point, weights=weights, probe=True)
        value = run.probes[position].switching.reshape(-1)[kink]
        if not value.requires_grad or not bool(torch.isfinite(value)):
            return None
        grads = torch.autograd.grad(value, run.leaves, retain_graph=True, materialize_grads=True)
        size = sum(float((g * g).sum()) for g in grads)
        first = first or abs(float(value.detach()))
        if abs(float(value.detach())) <= ON_SURFACE:
            return run, abs(float(value.detach())) / first if first > 0 else 0.0
        if size == 0:
            return None
        step = float(value.detach()) / size
        point = [p - step * g for p, g in zip(point, grads, strict=True)]
    return None


def _sides_differ(run: Run, left: float, kink: int, sizes: Sequence[float]) -> bool:
    for use, size in zip(run.mask_uses, sizes, strict=True):
        if use.difference is None:
            continue
        own = use.difference.detach()[use.kink == kink]
        scale = _scale_of(use, kink)
        # What grows with the compared difference is as small as Newton's method has left that.
        if bool(
            (
                own.abs() > max(SIDES_APART * max(scale, SIDES_LEFT * size), _SLACK * left * size)
            ).any()
        ):
            return True
    return False


def _scale_of(use: MaskUse, kink: int) -> float:
    """The largest value between which a kink decides; other elements may be far larger."""
    if use.table is None or use.labels is None:
        return use.scale
    own = use.table.detach()[:, (use.labels == kink + 1).any(0)]
    return float(own.abs().max()) if own.numel() else use.scale
