"""What a proof claims, as plain data and back: only what cannot be computed from the program.

Tolerances, touched kinks, rows, selections around the point, gaps and distances follow from the
program and the point. A file holds none of them that a checker would have to trust.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.constraints import find_relevant, flatten, unflatten
from clarke.decide.answers import Independent, Slope, Smallest, Vertices
from clarke.decide.apart import OneWay, OuterSeparation
from clarke.decide.certificate import Certificate
from clarke.decide.confirm import USUAL_FINEST
from clarke.decide.guards import OneLimit
from clarke.decide.membership import Member
from clarke.decide.model import Witness
from clarke.decide.normal import outer_estimate
from clarke.decide.norms import NormSeparation
from clarke.decide.refute import Separation
from clarke.decide.verification import fresh_generator
from clarke.decide.witnessed import Witnessed
from clarke.kinks.lowering import recorded_index
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.steering import Program

    Tensors = dict[str, torch.Tensor]
    Parts = tuple[torch.Tensor, ...]

_ENTRIES = 16  # of a direction, the largest, that are tried alone


def write(certificate: Certificate, tensors: Tensors) -> dict[str, Any]:
    """A proof's own part of a file; its tensors are added to `tensors`."""
    program, proof = certificate.replay, certificate.argument
    match proof:
        case Witnessed():
            bare = proof if proof.run_gradient is None else _without_run(proof, program)
            _write_witnesses(proof.witnesses, program, tensors)
            return {"kind": "witnesses", "weights": list(proof.weights), "finest": bare.finest}
        case OneLimit():
            _write_witnesses(proof.witnesses, program, tensors)
            tensors["limit"] = torch.from_numpy(proof.limit)
            return {"kind": "limits", "equal": proof.equal}
        case OneWay():
            tensors["shares"] = torch.from_numpy(proof.shares)
            return {"kind": "pieces that bend one way"}
        case Separation():
            tensors["direction"] = torch.from_numpy(proof.direction)
            return {"kind": "separation", "part": [int(k) for k in proof.part]}
        case OuterSeparation():
            tensors["direction"] = torch.from_numpy(proof.direction)
            return {"kind": "outer estimate"}
        case NormSeparation():
            tensors["direction"] = torch.from_numpy(proof.direction)
            return {"kind": "norms of zero"}
        case Member():
            return {"kind": "membership", **_write_member(proof, certificate, tensors)}
        case Smallest():
            own = _write_member(proof.member, certificate, tensors)
            return {"kind": "smallest", "short": proof.short, **own}
        case Slope():
            tensors.update(named("vector", certificate.gradient))
            return {"kind": "slope", "slope": proof.slope, "exact": proof.exact}
        case Vertices():
            _write_elements(proof.directions, proof.elements, program.point, tensors)
            return {"kind": "vertices", "count": len(proof.elements), "exact": proof.exact}
        case Independent():
            own = {"rank": proof.rank.rank, "off": proof.rank.off, "exact": proof.exact}
            return {"kind": "rank", **own}
        case _:
            raise TypeError(type(proof).__name__)


def _without_run(proof: Witnessed, program: Program) -> Witnessed:
    """The same for a reader who has the recorded operations and not the function."""
    bare = replace(proof, run_gradient=None)
    usual = proof.finest == USUAL_FINEST
    return bare if usual else replace(bare, finest=bare.finest_told(program))


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


def _write_member(proof: Member, certificate: Certificate, tensors: Tensors) -> dict[str, Any]:
    point = certificate.replay.point
    if proof.directions is None:
        tensors["elements"] = torch.from_numpy(proof.elements)
    else:
        _write_elements(proof.directions, proof.elements, point, tensors)
    tensors.update(named("vector", certificate.gradient))
    if proof.direction is not None:
        tensors["direction"] = torch.from_numpy(proof.direction)
    if proof.shares is not None:
        tensors["shares"] = torch.from_numpy(proof.shares)
    return {
        "inside": proof.inside,
        "weights": proof.weights.tolist(),
        "asked": proof.asked,
        "atoms": [[int(a) for a in atom] for atom in proof.atoms],
        "exact": proof.exact,
        "regular": proof.regular,
    }


def _write_elements(directions: Any, elements: Any, point: Parts, tensors: Tensors) -> None:
    for n, (d, g) in enumerate(zip(directions, elements, strict=True)):
        tensors.update(named(f"witness.{n}.direction", unflatten(d, point)))
        tensors.update(named(f"witness.{n}.gradient", unflatten(g, point)))


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


def gradient_of(certificate: Certificate) -> Parts:
    """The gradient that a proof is about, one tensor per variable; none of a member of the set."""
    judged = certificate.gradient if certificate.argument.judges else ()
    return tuple(g.to(torch.float64) for g in judged)


def proved(certificate: Certificate) -> tuple[Verdict, ...]:
    """The verdicts that a proof that holds is a proof of, the strongest first."""
    positive = (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE)
    proof = certificate.argument
    match proof:
        case Witnessed() if _is_smooth(certificate.replay):
            return positive
        case Witnessed():
            return positive[1:] if len(proof.witnesses) == 1 else positive[2:]
        case OneLimit():
            return positive if proof.equal else (Verdict.NOT_CLARKE,)
        case OneWay():
            return positive[2:]
        case _:
            return (Verdict.NOT_CLARKE if proof.judges else Verdict.UNDECIDED,)


def entry_apart(certificate: Certificate) -> int | None:
    """An entry of a direction that is enough to separate, with half its share of the gap or more.

    Where variables fall apart, a checker that looks at one of them has fewer kinks to decide.
    """
    program, target = certificate.replay, flatten(certificate.gradient)
    proof = certificate.argument
    match proof:
        case Separation():
            limits = proof.limits

            def gap(part: Any) -> float:
                return float(part @ target - part @ limits.element(limits.extreme(part)))

        case OuterSeparation():
            outer = outer_estimate(program, fresh_generator(), program.deadline)

            def gap(part: Any) -> float:
                return outer.gap(target, part)

        case _:
            return None
    direction = proof.direction
    for n in np.argsort(-np.abs(direction), kind="stable")[:_ENTRIES].tolist():
        part = np.where(np.arange(len(direction)) == n, direction, 0.0)
        if 2 * gap(part) * len(direction) >= proof.gap:
            return int(n)
    return None


def _is_smooth(program: Program) -> bool:
    """Whether no kink that matters is touched."""
    found = find_relevant(program, fresh_generator())
    return not (found.lost_masks or found.hazards or bool(found.relevant.any()))
