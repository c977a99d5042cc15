"""Claims out of a file, as certificates: what the file does not hold is computed."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.constraints import build_rows, find_relevant, flatten
from clarke.decide.allowed import allowed_error, least_bounds
from clarke.decide.answers import Independent, Slope, Smallest, Vertices
from clarke.decide.apart import OneWay, OuterSeparation, refute_outside
from clarke.decide.certificate import Argument, Certificate
from clarke.decide.dependent import Rank
from clarke.decide.exact import (
    part_entries,
    part_limits,
    recomputed_limits,
    rounding_of_set,
    verified,
)
from clarke.decide.guards import OneLimit
from clarke.decide.live import find_live
from clarke.decide.membership import Member, allowed_for, recomputed_set
from clarke.decide.model import Witness
from clarke.decide.normal import outer_estimate
from clarke.decide.norms import NormSeparation
from clarke.decide.recomputed import Defect
from clarke.decide.refute import Separation
from clarke.decide.rounding import Rounding
from clarke.decide.surroundings import surroundings
from clarke.decide.tolerance import added, larger, ray_bounds
from clarke.decide.verification import ad_weights, fresh_generator, own_gradient
from clarke.decide.witnessed import Witnessed, replay_bounds
from clarke.proof.checked import fields, items, number, truth, whole
from clarke.proof.container import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clarke.steering import Program

    Tensors = dict[str, torch.Tensor]
    Parts = tuple[torch.Tensor, ...]


def read(claim: Any, program: Program, tensors: Mapping[str, torch.Tensor]) -> Certificate:
    """The proof of a file, for its program; what is not in the file is computed.

    Raises:
        ProofError: Something is out of place.
        Defect: Nothing of the kind holds of this program.
    """
    kind = claim.get("kind") if isinstance(claim, dict) else None
    made = _READERS.get(kind) if isinstance(kind, str) else None
    if made is None:
        raise refuse("claim.kind is not known")
    if kind in ("vertices", "rank"):
        vector = tuple(torch.zeros_like(p) for p in program.point)
    else:
        asked = kind in ("membership", "smallest", "slope")
        vector = each("vector" if asked else "gradient", program, tensors, double=not asked)
    return Certificate(program, vector, made(claim, program, vector, tensors)).sealed()


def each(
    name: str, program: Program, tensors: Mapping[str, torch.Tensor], *, double: bool = True
) -> Parts:
    """One tensor for each variable, of its shape."""
    found = []
    for i, p in enumerate(program.point):
        part = tensors.get(f"{name}.{i}")
        if part is None or part.shape != p.shape or not part.is_floating_point():
            raise refuse(f"tensor {name}.{i} is missing, or has another shape than its variable")
        if double and part.dtype != torch.float64:
            raise refuse(f"tensor {name}.{i} is not of float64")
        found.append(part)
    return tuple(found)


def array(name: str, tensors: Mapping[str, torch.Tensor], dimensions: int = 1) -> Any:
    """A tensor of float64 as an array."""
    found = tensors.get(name)
    if found is None or found.dtype != torch.float64 or found.dim() != dimensions:
        raise refuse(f"tensor {name} is missing, or has another form")
    return found.numpy()


def _read_witnesses(
    count: int, program: Program, tensors: Mapping[str, torch.Tensor]
) -> tuple[Witness, ...]:
    return tuple(_read_witness(f"witness.{n}", program, tensors) for n in range(count))


def _read_witness(name: str, program: Program, tensors: Mapping[str, torch.Tensor]) -> Witness:
    direction = each(f"{name}.direction", program, tensors)
    gradient = each(f"{name}.gradient", program, tensors)
    selection = tensors.get(f"{name}.selection")
    if selection is None or selection.dtype != torch.int64 or selection.shape[1:] != (2,):
        raise refuse(f"tensor {name}.selection is missing, or has another form")
    choices, listed = {}, selection[:, 0].tolist()
    for site in program.analysis.ordered():
        own = range(site.first, site.first + site.touch.count)
        mine = [i for i, kink in enumerate(listed) if kink in own]
        if mine and [listed[i] for i in mine] == list(own):
            choices[site.position] = selection[mine, 1]
    if sum(len(c) for c in choices.values()) != len(listed):
        raise refuse(f"{name}.selection does not name all kinks of an operation once")
    return Witness(direction, choices, gradient, *_rows(program, direction, choices))


def _rows(program: Program, direction: Parts, choices: Mapping[int, torch.Tensor]) -> Any:
    """The rows of a witness; none where gradients along a ray are the proof."""
    try:
        relevance = find_relevant(program, fresh_generator(), choices=choices)
    except (LookupError, ValueError, RuntimeError) as error:
        raise Defect("the selection is none of the program's") from error
    if relevance.lost_masks or relevance.hazards or not bool(relevance.relevant.any()):
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    rows = build_rows(program, choices, relevance.relevant)
    return rows.times(direction).to(torch.float64).numpy(), rows.kinks.numpy()


def _read_certificate(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Argument:
    fields(claim, {"kind", "weights", "finest"}, "claim")
    weights = tuple(number(w, "claim.weights") for w in items(claim["weights"], "claim.weights"))
    witnesses = _read_witnesses(len(weights), program, tensors)
    if not witnesses:
        raise refuse("claim.weights is empty")
    mixture = ad_weights(program)
    own = own_gradient(program)
    coarse = Rounding(program, own, weights=mixture)
    coarse.covers(gradient)  # of many entries, it takes the samples that the judge took
    rounding = coarse.bounds
    replay = replay_bounds(program, witnesses)
    bounds = added(added(rounding, replay), least_bounds(program, gradient, witnesses, weights))
    if find_relevant(program, fresh_generator()).hazards:
        for w in witnesses:
            sizes = larger(tuple(g.abs() for g in w.gradient), tuple(g.abs() for g in gradient))
            bounds = added(bounds, ray_bounds(sizes))
    return Witnessed(
        witnesses=witnesses,
        weights=weights,
        bounds=bounds,
        replay_bounds=larger(rounding, replay),
        finest=number(claim["finest"], "claim.finest"),
    )


def _read_limits(
    claim: Any,
    program: Program,
    gradient: Parts,  # noqa: ARG001 - it says of all what the limit is
    tensors: Mapping[str, torch.Tensor],
) -> Argument:
    fields(claim, {"kind", "equal"}, "claim")
    count = sum(1 for name in tensors if name.endswith(".selection"))
    witnesses = _read_witnesses(count, program, tensors)
    own = own_gradient(program)
    generator = fresh_generator()
    relevance = find_relevant(program, generator)
    around = surroundings(program, own, relevance, generator, program.deadline)
    if isinstance(around, str):
        raise Defect(around)
    return OneLimit(
        limit=array("limit", tensors),
        error=around.error,
        equal=truth(claim["equal"]),
        witnesses=witnesses,
        weights=tuple(1 / count for _ in range(count)),
    )


def _read_regular(
    claim: Any,
    program: Program,
    gradient: Parts,  # noqa: ARG001 - the weights say what it is
    tensors: Mapping[str, torch.Tensor],
) -> Argument:
    fields(claim, {"kind"}, "claim")
    mixture = ad_weights(program)
    own = own_gradient(program)
    coarse = Rounding(program, own, weights=mixture).bounds
    replay = Rounding(program, own, weights=mixture, double=True).bounds
    shares = array("shares", tensors)
    return OneWay(shares, added(coarse, replay))


def _read_refutation(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Argument:
    fields(claim, {"kind", "part"}, "claim")
    part = tuple(whole(k, "claim.part") for k in items(claim["part"], "claim.part"))
    if any(not 0 <= k < program.analysis.count for k in part):
        raise refuse("claim.part names a kink that is not touched")
    target = flatten(gradient)
    direction = _direction(target, tensors)
    entries = np.ones(len(target), dtype=bool)
    if part:
        entries = part_entries(program, part)
        live = find_live(program, fresh_generator())
        limits = part_limits(program, live, part, entries, fresh_generator(), verified())
    else:
        limits = recomputed_limits(program)
    if not limits.count:
        raise Defect("no selection is left around the point")
    least = allowed_error(program, target) + rounding_of_set(program, limits)
    allowed = np.where(entries, least, 0.0)
    own = np.where(entries, target, 0.0)
    far = limits.element(limits.extreme(direction))
    return Separation(
        limits=limits,
        direction=direction,
        gap=float(direction @ own - direction @ far),
        distance=limits.place(own, allowed, program.deadline).distance,
        allowed=allowed,
        part=part,
    )


def _read_outer(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Argument:
    fields(claim, {"kind"}, "claim")
    target = flatten(gradient)
    direction = _direction(target, tensors)
    outer = outer_estimate(program, fresh_generator(), program.deadline)
    own = refute_outside(outer, target, allowed_error(program, target))
    if own is None:
        raise Defect("the gradient is not outside of the estimate")
    return OuterSeparation(
        direction=direction,
        gap=outer.gap(target, direction),
        distance=own.distance,
        kinks=own.kinks,
    )


def _read_norms(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Argument:
    fields(claim, {"kind"}, "claim")
    target = flatten(gradient)
    return NormSeparation.claimed(program, target, _direction(target, tensors))


def _direction(target: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    found = array("direction", tensors)
    if found.shape != target.shape or not np.isfinite(found).all():
        raise refuse("tensor direction has not a finite number for each entry of the gradient")
    return found


def _stacked(name: str, count: int, program: Program, tensors: Mapping[str, torch.Tensor]) -> Any:
    """(count, n) a tensor of every witness."""
    rows = [flatten(each(f"witness.{k}.{name}", program, tensors)) for k in range(count)]
    return np.stack(rows) if rows else np.zeros((0, sum(p.numel() for p in program.point)))


def _read_membership(
    claim: Any,
    program: Program,
    vector: Parts,
    tensors: Mapping[str, torch.Tensor],
) -> Member:
    known = {"kind", "inside", "weights", "asked", "atoms", "exact", "regular"}
    fields(claim, known, "claim")
    inside, exact, regular = (truth(claim[name]) for name in ("inside", "exact", "regular"))
    asked = None if claim["asked"] is None else number(claim["asked"], "claim.asked")
    target = flatten(vector)
    found = recomputed_set(program, exact=exact, regular=regular)
    allowed = allowed_for(found, vector, asked)
    if asked is None and not inside:
        allowed = allowed + rounding_of_set(program, found)
    given = items(claim["weights"], "claim.weights")
    weights = np.array([number(w, "claim.weights") for w in given], dtype=np.float64)
    directions = None
    if "elements" in tensors:
        elements = array("elements", tensors, 2)
    else:
        elements = _stacked("gradient", len(given), program, tensors)
        directions = _stacked("direction", len(given), program, tensors)
    if elements.shape != (len(weights), len(target)):
        raise refuse("tensors elements and weights do not fit the vector")
    if inside:
        distance = float(np.linalg.norm(weights @ elements - target))
    else:
        distance = found.place(target, allowed, program.deadline).distance
    atoms = [
        tuple(whole(a, "claim.atoms") for a in items(atom, "claim.atoms"))
        for atom in items(claim["atoms"], "claim.atoms")
    ]
    return Member(
        inside=inside,
        distance=distance,
        elements=elements,
        weights=weights,
        direction=_direction(target, tensors) if "direction" in tensors else None,
        allowed=allowed,
        atoms=tuple(atoms),
        asked=asked,
        exact=exact,
        regular=regular,
        shares=array("shares", tensors, 2) if "shares" in tensors else None,
        directions=directions,
    )


def _read_smallest(
    claim: Any, program: Program, vector: Parts, tensors: Mapping[str, torch.Tensor]
) -> Argument:
    rest = {name: value for name, value in claim.items() if name != "short"}
    member = _read_membership(rest, program, vector, tensors)
    return Smallest(member, number(claim.get("short"), "claim.short"))


def _read_slope(
    claim: Any,
    program: Program,  # noqa: ARG001 - it is recomputed from it when it is checked
    vector: Parts,  # noqa: ARG001 - the direction
    tensors: Mapping[str, torch.Tensor],  # noqa: ARG001 - there are none
) -> Argument:
    fields(claim, {"kind", "slope", "exact"}, "claim")
    return Slope(number(claim["slope"], "claim.slope"), truth(claim["exact"]))


def _read_vertices(
    claim: Any,
    program: Program,
    vector: Parts,  # noqa: ARG001 - it is about none
    tensors: Mapping[str, torch.Tensor],
) -> Argument:
    fields(claim, {"kind", "count", "exact"}, "claim")
    count = whole(claim["count"], "claim.count")
    if not 0 < count <= len(tensors):
        raise refuse("claim.count is not that of the vertices")
    elements, directions = (
        _stacked(name, count, program, tensors) for name in ("gradient", "direction")
    )
    return Vertices(elements, directions, truth(claim["exact"]))


def _read_rank(
    claim: Any,
    program: Program,  # noqa: ARG001 - it is recomputed from it when it is checked
    vector: Parts,  # noqa: ARG001 - it is about none
    tensors: Mapping[str, torch.Tensor],  # noqa: ARG001 - there are none
) -> Argument:
    fields(claim, {"kind", "rank", "off", "exact"}, "claim")
    rank = Rank(whole(claim["rank"], "claim.rank"), number(claim["off"], "claim.off"))
    return Independent(rank, truth(claim["exact"]))


_READERS: Mapping[str, Callable[[Any, Program, Parts, Mapping[str, torch.Tensor]], Argument]] = (
    MappingProxyType(
        {
            "witnesses": _read_certificate,
            "limits": _read_limits,
            "pieces that bend one way": _read_regular,
            "separation": _read_refutation,
            "outer estimate": _read_outer,
            "norms of zero": _read_norms,
            "membership": _read_membership,
            "smallest": _read_smallest,
            "slope": _read_slope,
            "vertices": _read_vertices,
            "rank": _read_rank,
        }
    )
)
