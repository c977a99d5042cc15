"""Proofs of large programs without what follows from the rest of the file, and back.

A file without instructions is read by clarke alone. What its witnesses have in common with the
gradient and with each other, zeros, and the second half of numbers that fit into one, are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.proof.container import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Tensors = Mapping[str, torch.Tensor]

_SPARSE = 4  # times as many entries as are not zero


def is_slim(content: Any) -> bool:
    """Whether a file has this form: witnesses, and no instructions."""
    claim, told = content["claim"], content["instructions"]
    kind = claim.get("kind") if isinstance(claim, dict) else None
    return kind == "witnesses" and isinstance(told, dict) and set(told) == {"missing"}


def slim(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors of a proof by witnesses, without what `whole` finds again."""
    found = dict(tensors)
    for name, before, sign in _parts(tensors):
        tensor = found.pop(name)
        if before is None or not torch.equal(tensor, sign * tensors[before]):
            found |= _packed(name, tensor)
    return {n: _narrow(t) if n.startswith("gradient.") else t for n, t in found.items()}


def whole(tensors: Tensors) -> dict[str, torch.Tensor]:
    """All tensors again.

    Raises:
        ProofError: Something is out of place, or could have been left out.
    """
    found = {n: _wide(t) if n.startswith("gradient.") else t for n, t in tensors.items()}
    for name, before, sign in _parts(found):
        places, values = found.pop(f"{name}.places", None), found.pop(name, None)
        if places is not None:
            like = found[f"gradient.{name.rpartition('.')[2]}"]
            found[name] = _spread(name, places, values, like)
        elif values is not None:
            found[name] = _wide(values)
        elif before is not None:
            found[name] = sign * found[before]
        else:
            raise refuse(f"tensor {name} is missing")
    if slim(found).keys() != tensors.keys():
        raise refuse("its tensors have another form than clarke writes")
    return found


def _parts(tensors: Tensors) -> Iterator[tuple[str, str | None, int]]:
    """What witnesses hold: name, and which tensor times which sign it often is.

    Directions are opposite to the one before; gradients are equal, the first to that of the claim.
    """
    count = sum(n.startswith("gradient.") for n in tensors)
    for k in range(sum(n.endswith(".selection") for n in tensors)):
        before = f"witness.{k - 1}." if k else ""
        for i in range(count):
            yield f"witness.{k}.direction.{i}", f"{before}direction.{i}" if k else None, -1
            yield f"witness.{k}.gradient.{i}", f"{before}gradient.{i}", 1


def _packed(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A tensor, or its entries that are not zero and their places."""
    flat = tensor.reshape(-1)
    places = flat.nonzero().flatten()
    if _SPARSE * len(places) > len(flat):
        return {name: _narrow(tensor)}
    return {name: _narrow(flat[places]), f"{name}.places": places}


def _spread(
    name: str, places: torch.Tensor, values: torch.Tensor | None, like: torch.Tensor
) -> torch.Tensor:
    """A tensor from its entries that are not zero."""
    proper = places.dtype == torch.int64 and places.dim() == 1 and values is not None
    if values is None or not proper or values.shape != places.shape:
        raise refuse(f"tensor {name} has not a value for each of its places")
    inside = bool(((places >= 0) & (places < like.numel())).all())
    if not inside or not bool((places.diff() > 0).all()):
        raise refuse(f"tensor {name} has places that are none of its variable, or out of order")
    flat = torch.zeros(like.numel(), dtype=torch.float64)
    flat[places] = _wide(values)
    return flat.reshape(like.shape)


def _narrow(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in float32, where that holds them."""
    if tensor.dtype != torch.float64:
        return tensor
    short = tensor.to(torch.float32)
    return short if torch.equal(short.to(torch.float64), tensor) else tensor


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.float64) if tensor.dtype == torch.float32 else tensor
