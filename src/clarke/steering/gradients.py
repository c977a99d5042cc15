"""Gradients of a program: under a selection, as PyTorch evaluates it, and along a direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.errors import ReplayError
from clarke.kinks.regions import RegionRule
from clarke.numerics import TANGENTS_EQUAL
from clarke.steering.analysis import Site
from clarke.steering.program import Pieces, Program, Run
from clarke.steering.state import Probe
from clarke.tangents import forward_mode
from clarke.torch_private import unpack_dual

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.kinks import Touch
    from clarke.steering.noise import Errors


def gradient_of(run: Run, program: Program, *, again: bool = False) -> tuple[torch.Tensor, ...]:
    """The gradient of a replay's output with respect to the program's variables.

    With `again` it may be asked for once more: signs that are turned at random are others then.
    """
    if not run.output.requires_grad:
        return tuple(torch.zeros_like(p) for p in program.point)
    try:
        grads = torch.autograd.grad(
            run.output.sum(), run.leaves, retain_graph=again, materialize_grads=True
        )
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise ReplayError(
            "A custom Function's forward overwrites values through a view of them, which clarke "
            "cannot differentiate again. Write to a clone there."
        ) from error
    return tuple(g.detach() for g in grads)


def selected_gradient(
    program: Program,
    choices: Mapping[int, torch.Tensor] | None = None,
    point: Sequence[torch.Tensor] | None = None,
    weights: Mapping[int, torch.Tensor] | None = None,
    errors: Errors | None = None,
) -> tuple[torch.Tensor, ...]:
    """G(selection): the gradient with forced pieces (AD's where `choices` is silent)."""
    run = program.run(point, choices=choices, weights=weights, errors=errors)
    return gradient_of(run, program)


def natural_gradient(
    program: Program,
    point: Sequence[torch.Tensor] | None = None,
    pieces: Pieces = Pieces.NATURAL,
    *,
    functions: bool = False,
) -> tuple[torch.Tensor, ...]:
    """What AD returns at `point`, in the replay's dtype.

    With `Pieces.HELD`, elements that were not at a kink keep their recorded piece: the replay in
    float64 may otherwise put values within float32 rounding of a kink on the other side of it.
    With `functions`, custom Functions give their own derivatives, as they do in the program.
    """
    return gradient_of(program.run(point, pieces=pieces, functions=functions), program)


class Selector:
    """Picks the pieces active along the tangents that a replay carries.

    Attributes:
        choices: (K,) candidates by site position, filled as the replay goes.
        ties: (K,) bool by site position: kinks whose best candidates the direction does not
            separate; there AD's choice is kept if it is one of them.
    """

    def __init__(self) -> None:
        self.choices: dict[int, torch.Tensor] = {}
        self.ties: dict[int, torch.Tensor] = {}

    def choose(self, site: Site, probe: Probe) -> torch.Tensor:
        """The candidates of one site, from its probe."""
        touch = site.touch
        found = unpack_dual(probe.switching)[1]
        slopes = torch.zeros_like(probe.switching) if found is None else found
        slopes = slopes.detach()
        level = slopes.reshape(-1, touch.count) if _is_region(site) else slopes
        picked = site.rule.along(probe.call, touch, level)
        if site.rule.by_weights:
            sizes = torch.zeros(touch.count, dtype=slopes.dtype)
            self.choices[site.position] = picked
            self.ties[site.position] = sizes.index_add(0, touch.owner, slopes.abs()) == 0
            return picked
        tied = unseparated(site, slopes)
        choice = torch.where(tied & _own_is_best(site, slopes), touch.chosen(), picked)
        self.choices[site.position] = choice
        self.ties[site.position] = tied
        return choice


def select_along(
    program: Program, direction: Sequence[torch.Tensor]
) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """The pieces active along a direction.

    Returns:
        The candidate of every touched kink, and for each whether the direction did not separate
        its candidates (then AD's choice is kept), both by site position.
    """
    selector = Selector()
    with forward_mode():
        program.run(tangents=tuple(direction), chooser=selector.choose, grad=False)
    return selector.choices, selector.ties


def _is_region(site: Site) -> bool:
    return isinstance(site.rule, RegionRule)


def unseparated(site: Site, slopes: torch.Tensor) -> torch.Tensor:
    """(K,) whether the best candidates of a kink have equal tangents."""
    touch = site.touch
    if _is_region(site):
        levels = slopes.reshape(-1, touch.count)
        return (levels.abs() <= 0).any(0)
    if slopes.numel() == touch.count and touch.members.numel() != touch.count:
        return slopes == 0  # comparisons
    many = torch.zeros(touch.count, dtype=torch.int64).index_add(
        0, touch.owner, _best(touch, slopes).to(torch.int64)
    )
    return many > 1


def _best(touch: Touch, slopes: torch.Tensor) -> torch.Tensor:
    """(M,) candidates whose tangent is the one that the direction selects, up to rounding."""
    size = torch.zeros(touch.count, dtype=slopes.dtype)
    size.scatter_reduce_(0, touch.owner, slopes.abs(), "amax")
    if touch.ranks is None:
        wanted = torch.full((touch.count,), -torch.inf, dtype=slopes.dtype)
        wanted.scatter_reduce_(0, touch.owner, slopes, "amax")
    else:
        by_value = torch.argsort(slopes, descending=True, stable=True)
        by_kink = by_value[torch.argsort(touch.owner[by_value], stable=True)]
        sizes = torch.bincount(touch.owner, minlength=touch.count)
        start = torch.cumsum(sizes, 0) - sizes
        wanted = slopes[by_kink][start + torch.minimum(touch.ranks.greater, sizes - 1)]
    return (slopes - wanted[touch.owner]).abs() <= TANGENTS_EQUAL * size[touch.owner]


def _own_is_best(site: Site, slopes: torch.Tensor) -> torch.Tensor:
    """(K,) whether AD's candidate is among those between which the direction does not decide."""
    touch = site.touch
    if slopes.numel() != touch.members.numel() or _is_region(site):
        return torch.ones(touch.count, dtype=torch.bool)
    if touch.ranks is not None:
        # One permutation for all outputs of a block: AD's own need not fit the others.
        return torch.zeros(touch.count, dtype=torch.bool)
    own = (touch.members == touch.chosen()[touch.owner]) & _best(touch, slopes)
    found = torch.zeros(touch.count, dtype=torch.int64)
    return found.index_add(0, touch.owner, own.to(torch.int64)) > 0
