"""What a proof claims, as plain data and back: only what cannot be computed from the program.

Tolerances, touched kinks, rows, selections around the point, gaps and distances follow from the
program and the point. A file holds none of them that a checker would have to trust.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.constraints import build_rows, find_relevant, flatten, unflatten
from clarke.decide.apart import OuterRefutation, RegularProof, refute_outside
from clarke.decide.certificate import Certificate, replay_bounds
from clarke.decide.confirm import USUAL_FINEST
from clarke.decide.guards import LimitProof
from clarke.decide.live import find_live
from clarke.decide.membership import Membership, allowed_for
from clarke.decide.model import Witness
from clarke.decide.normal import outer_estimate
from clarke.decide.refute import (
    Refutation,
    part_entries,
    part_limits,
    recomputed_limits,
    rounding_of_set,
    verified,
)
from clarke.decide.rounding import Rounding, allowed_error, least_bounds
from clarke.decide.surroundings import surroundings
from clarke.decide.tolerance import added, larger, ray_bounds
from clarke.decide.verification import (
    Defect,
    Recomputed,
    ad_weights,
    fresh_generator,
    is_replayed,
)
from clarke.kinks.lowering import recorded_index
from clarke.proof.container import refuse
from clarke.proof.plain import fields, items, number, truth, whole
from clarke.steering import selected_gradient
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.steering import Program

    Tensors = dict[str, torch.Tensor]
    Parts = tuple[torch.Tensor, ...]


def write(proof: Recomputed, tensors: Tensors) -> dict[str, Any]:
    """A proof's own part of a file; its tensors are added to `tensors`."""
    program = proof.program
    match proof:
        case Certificate():
            bare = proof if proof.run_gradient is None else _without_run(proof)
            _write_witnesses(proof.witnesses, program, tensors)
            return {"kind": "witnesses", "weights": list(proof.weights), "finest": bare.finest}
        case LimitProof():
            _write_witnesses(proof.witnesses, program, tensors)
            tensors["limit"] = torch.from_numpy(proof.limit)
            return {"kind": "limits", "equal": proof.equal}
        case RegularProof():
            tensors["shares"] = torch.from_numpy(proof.shares)
            return {"kind": "pieces that bend one way"}
        case Refutation():
            tensors["direction"] = torch.from_numpy(proof.direction)
            return {"kind": "separation", "part": [int(k) for k in proof.part]}
        case OuterRefutation():
            tensors["direction"] = torch.from_numpy(proof.direction)
            return {"kind": "outer estimate"}
        case Membership():
            return _write_membership(proof, tensors)
        case _:
            raise TypeError(type(proof).__name__)


def _without_run(proof: Certificate) -> Certificate:
    """The same for a reader who has the recorded operations and not the function."""
    bare = replace(proof, run_gradient=None)
    usual = proof.finest == USUAL_FINEST
    return bare if usual else replace(bare, finest=bare.finest_told())


def _write_witnesses(witnesses: Sequence[Witness], program: Program, tensors: Tensors) -> None:
    for n, witness in enumerate(witnesses):
        tensors.update(named(f"witness.{n}.direction", witness.direction))
        tensors.update(named(f"witness.{n}.gradient", witness.gradient))
        pairs = [
            torch.stack([torch.arange(site.first, site.first + site.touch.count), choice], 1)
            for position, choice in sorted(witness.choices.items())
            for site in (program.analysis.sites[position],)
        ]
        empty = torch.zeros((0, 2), dtype=torch.int64)
        tensors[f"witness.{n}.selection"] = torch.cat([empty, *pairs])


def _write_membership(proof: Membership, tensors: Tensors) -> dict[str, Any]:
    tensors["elements"] = torch.from_numpy(proof.elements)
    tensors["weights"] = torch.from_numpy(proof.weights)
    tensors.update(named("vector", proof.vector))
    if proof.direction is not None:
        tensors["direction"] = torch.from_numpy(proof.direction)
    atoms = [[int(a) for a in atom] for atom in proof.atoms]
    return {"kind": "membership", "inside": proof.inside, "asked": proof.asked, "atoms": atoms}


def named(name: str, parts: Sequence[torch.Tensor]) -> Tensors:
    """One tensor for each variable, by name."""
    return {f"{name}.{i}": p for i, p in enumerate(parts)}


def touched(program: Program) -> torch.Tensor:
    """(N, 3) of all touched kinks: operation, which part of it, and element."""
    found = [torch.zeros((0, 3), dtype=torch.int64)]
    numbers = {op.index: i for i, op in enumerate(program.analysis.recorded.ops)}
    parts: dict[int, int] = {}
    for site in program.analysis.ordered():
        op = numbers[recorded_index(site.touch.op.index)]
        part = parts[op] = parts.get(op, -1) + 1
        row = torch.tensor([[op, part]]).expand(site.touch.count, 2)
        found.append(torch.cat([row, site.touch.elements[:, None]], 1))
    return torch.cat(found)


def read(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Recomputed:
    """The proof of a file, for its program; what is not in the file is computed.

    Raises:
        ProofError: Something is out of place.
        Defect: Nothing of the kind holds of this program.
    """
    kind = claim.get("kind") if isinstance(claim, dict) else None
    made = _READERS.get(kind) if isinstance(kind, str) else None
    if made is None:
        raise refuse("claim.kind is not known")
    return made(claim, program, gradient, tensors).sealed()


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
) -> Recomputed:
    fields(claim, {"kind", "weights", "finest"}, "claim")
    weights = tuple(number(w, "claim.weights") for w in items(claim["weights"], "claim.weights"))
    witnesses = _read_witnesses(len(weights), program, tensors)
    if not witnesses:
        raise refuse("claim.weights is empty")
    mixture = ad_weights(program)
    own = selected_gradient(program, weights=mixture)
    rounding = Rounding(program, own, weights=mixture).bounds
    replay = replay_bounds(program, witnesses)
    bounds = added(added(rounding, replay), least_bounds(program, gradient, witnesses, weights))
    if find_relevant(program, fresh_generator()).hazards:
        for w in witnesses:
            sizes = larger(tuple(g.abs() for g in w.gradient), tuple(g.abs() for g in gradient))
            bounds = added(bounds, ray_bounds(sizes))
    return Certificate(
        program=program,
        gradient=gradient,
        point=program.point,
        witnesses=witnesses,
        weights=weights,
        bounds=bounds,
        replay_bounds=larger(rounding, replay),
        finest=number(claim["finest"], "claim.finest"),
    )


def _read_limits(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Recomputed:
    fields(claim, {"kind", "equal"}, "claim")
    count = sum(1 for name in tensors if name.endswith(".selection"))
    witnesses = _read_witnesses(count, program, tensors)
    own = selected_gradient(program, weights=ad_weights(program))
    generator = fresh_generator()
    relevance = find_relevant(program, generator)
    around = surroundings(program, own, relevance, generator, program.deadline)
    if isinstance(around, str):
        raise Defect(around)
    return LimitProof(
        program=program,
        point=program.point,
        gradient=gradient,
        replayed=is_replayed(program, flatten(gradient)),
        limit=array("limit", tensors),
        error=around.error,
        equal=truth(claim["equal"]),
        witnesses=witnesses,
        weights=tuple(1 / count for _ in range(count)),
    )


def _read_regular(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Recomputed:
    fields(claim, {"kind"}, "claim")
    mixture = ad_weights(program)
    own = selected_gradient(program, weights=mixture)
    coarse = Rounding(program, own, weights=mixture).bounds
    replay = Rounding(program, own, weights=mixture, double=True).bounds
    shares = array("shares", tensors)
    return RegularProof(program, program.point, gradient, shares, added(coarse, replay))


def _read_refutation(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Recomputed:
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
    replayed = is_replayed(program, target)
    least = allowed_error(program, replayed=replayed) + rounding_of_set(program, limits)
    allowed = np.where(entries, least, 0.0)
    own = np.where(entries, target, 0.0)
    far = limits.element(limits.extreme(direction))
    return Refutation(
        program=program,
        point=program.point,
        gradient=target,
        replayed=replayed,
        limits=limits,
        direction=direction,
        gap=float(direction @ own - direction @ far),
        distance=limits.place(own, allowed, program.deadline).distance,
        allowed=allowed,
        part=part,
    )


def _read_outer(
    claim: Any, program: Program, gradient: Parts, tensors: Mapping[str, torch.Tensor]
) -> Recomputed:
    fields(claim, {"kind"}, "claim")
    target = flatten(gradient)
    direction = _direction(target, tensors)
    outer = outer_estimate(program, fresh_generator(), program.deadline)
    replayed = is_replayed(program, target)
    own = refute_outside(outer, program, target, allowed_error(program, replayed=replayed))
    if own is None:
        raise Defect("the gradient is not outside of the estimate")
    return OuterRefutation(
        program=program,
        point=program.point,
        gradient=target,
        replayed=replayed,
        direction=direction,
        gap=outer.gap(target, direction),
        distance=own.distance,
        kinks=own.kinks,
    )


def _direction(target: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    found = array("direction", tensors)
    if found.shape != target.shape or not np.isfinite(found).all():
        raise refuse("tensor direction has not a finite number for each entry of the gradient")
    return found


def _read_membership(
    claim: Any,
    program: Program,
    gradient: Parts,  # noqa: ARG001 - it is about a vector of its own
    tensors: Mapping[str, torch.Tensor],
) -> Recomputed:
    fields(claim, {"kind", "inside", "asked", "atoms"}, "claim")
    inside = truth(claim["inside"])
    asked = None if claim["asked"] is None else number(claim["asked"], "claim.asked")
    vector = each("vector", program, tensors, double=False)
    target = flatten(vector)
    limits = recomputed_limits(program)
    allowed = allowed_for(limits, vector, target, asked)
    if asked is None and not inside:
        allowed = allowed + rounding_of_set(program, limits)
    elements, weights = array("elements", tensors, 2), array("weights", tensors)
    if elements.shape != (len(weights), len(target)):
        raise refuse("tensors elements and weights do not fit the vector")
    if inside:
        distance = float(np.linalg.norm(weights @ elements - target))
    else:
        distance = limits.place(target, allowed, program.deadline).distance
    atoms = [
        tuple(whole(a, "claim.atoms") for a in items(atom, "claim.atoms"))
        for atom in items(claim["atoms"], "claim.atoms")
    ]
    return Membership(
        inside=inside,
        distance=distance,
        elements=elements,
        weights=weights,
        direction=_direction(target, tensors) if "direction" in tensors else None,
        target=target,
        allowed=allowed,
        atoms=tuple(atoms),
        vector=vector,
        asked=asked,
        program=program,
        point=program.point,
    )


_READERS: Mapping[str, Callable[[Any, Program, Parts, Mapping[str, torch.Tensor]], Recomputed]] = (
    MappingProxyType(
        {
            "witnesses": _read_certificate,
            "limits": _read_limits,
            "pieces that bend one way": _read_regular,
            "separation": _read_refutation,
            "outer estimate": _read_outer,
            "membership": _read_membership,
        }
    )
)


def gradient_of(proof: Recomputed) -> Parts:
    """The gradient that a proof is about, one tensor per variable."""
    if isinstance(proof, Membership):
        return ()
    own = proof.gradient  # type: ignore[attr-defined]
    return unflatten(own, proof.point) if isinstance(own, np.ndarray) else own


def proved(proof: Recomputed) -> tuple[Verdict, ...]:
    """The verdicts that a proof that holds is a proof of, the strongest first."""
    positive = (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE)
    match proof:
        case Certificate() if _is_smooth(proof.program):
            return positive
        case Certificate():
            return positive[1:] if len(proof.witnesses) == 1 else positive[2:]
        case LimitProof():
            return positive if proof.equal else (Verdict.NOT_CLARKE,)
        case RegularProof():
            return positive[2:]
        case Membership():
            return ()
        case _:
            return (Verdict.NOT_CLARKE,)


def _is_smooth(program: Program) -> bool:
    """Whether no kink that matters is touched."""
    found = find_relevant(program, fresh_generator())
    return not (found.lost_masks or found.hazards or bool(found.relevant.any()))
