"""What processes of one training write to each other of a step, and how rank 0 answers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture import Location
from clarke.decide import Decision
from clarke.decide.model import Culprit
from clarke.errors import ClarkeError, UnsupportedError, in_a_line
from clarke.numerics import AVERAGED, POST_BYTES
from clarke.proof import (
    judge_stored,
    mean_of,
    pack,
    pack_step,
    unpack,
    unpack_stored,
    with_parameters,
)
from clarke.rerun import plain
from clarke.torch_private import ROUNDING_HOOKS
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.audit.meeting import Part
    from clarke.audit.post import Post
    from clarke.capture import Trace
    from clarke.decide import Settings

BLOCK = 1 << 16
_NONE: Final[Mapping[int, int]] = MappingProxyType({})


@dataclass(frozen=True)
class Job:
    """Programs that are to be judged together: where, within which limits, and of how many calls.

    `fresh` says that the gradient is that of one call of each process, `of` what the sum of all is
    divided by.
    """

    post: Post
    name: str
    settings: Settings
    seconds: float | None
    fresh: bool
    of: float


def judged(
    raw: Sequence[bytes],
    job: Job,
    gradient: tuple[torch.Tensor, ...],
    wholes: Mapping[int, torch.Tensor] = MappingProxyType({}),
) -> tuple[Decision, dict[int, torch.Tensor]]:
    """The verdict on the programs of all, and a correct gradient by parameter where there is one.

    Where calls add up, those that were smooth everywhere have sent no program. By the sum rule,
    which is an equality there, they move gradient and subdifferential alike: the sum of the others
    is judged, against what these have added to the gradient. `wholes` are parameters of which every
    process sent a part.
    """
    try:
        steps = [
            (f"rank {r}", *_unpacked(unit, wholes))
            for r, units in enumerate(raw)
            for unit in unbundled(units)
        ]
        found = dict(enumerate(gradient)) if job.fresh else None
        step, order = mean_of(steps, of=job.of, gradient=found)
        decision = judge_stored(step, job.seconds, job.settings)
    except Exception as error:  # noqa: BLE001 - the others wait for an answer
        why = str(error) if isinstance(error, ClarkeError) else in_a_line(error)
        return Decision(Verdict.UNDECIDED, why), {}
    if decision.element is None:
        return decision, {}
    element = {}
    for key, judged, right in zip(order, step.gradient, decision.element, strict=True):
        given = gradient[key]
        shift = right.to(torch.float64) - judged.to(torch.float64)
        element[key] = right if job.fresh else given.to(torch.float64) + shift
    return decision, element


def told(answer: bytes, gradient: tuple[torch.Tensor, ...]) -> Decision:
    """The decision of an answer; `gradient` where that has no correct entry."""
    content, tensors = unpack(answer)
    element = None
    if tensors:
        element = tuple(tensors.get(f"element.{i}", g) for i, g in enumerate(gradient))
    return Decision(
        Verdict[content["verdict"]],
        content["reason"],
        theorem=content["theorem"],
        culprits=tuple(Culprit(o, Location(*p), r) for o, p, r in content["culprits"]),
        notes=tuple(content["notes"]),
        cures=tuple(content["cures"]),
        element=element,
        out_of_time=content["out_of_time"],
    )


def planned(flags: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all processes are to do, from what each of them tells."""
    why = next((f["why"] for f in flags if f["why"]), "")
    if not why and len({f["leaves"] for f in flags}) > 1:
        why = _OTHER_LEAVES
    why = why or _not_the_mean(flags)
    # What is sent may become too large for the type it is sent in.
    smooth = all(f.get("smooth") and math.isfinite(f["mean"][0]) for f in flags)
    if not (why or smooth):
        why = next((f["apart"] for f in flags if f["apart"]), "")
    rounding = _rounding(flags)
    told = {"why": why, "smooth": smooth, "note": _ROUNDED.format(*rounding) if rounding else ""}
    return {**told, "fresh": not rounding and all(f.get("fresh") for f in flags)}


def _rounding(flags: Sequence[dict[str, Any]]) -> tuple[str, torch.dtype] | None:
    """The hook that sends gradients in a narrower type, if that is all that any hook does.

    Not where numbers were too large for it.
    """
    hooks = {h for f in flags for h in f["hooks"]}
    if len(hooks) != 1 or not all(math.isfinite(f["mean"][0]) for f in flags):
        return None
    (hook,) = hooks
    return (hook, ROUNDING_HOOKS[hook]) if hook in ROUNDING_HOOKS else None


def _not_the_mean(flags: Sequence[dict[str, Any]]) -> str:
    """Whether the gradients that the processes were given are one, and the mean of theirs."""
    sums, means = [f["mine"][0] for f in flags], [f["mean"][0] for f in flags]
    spread = any(f.get("spread") for f in flags)  # each was given a part of it
    if not all(math.isfinite(x) for x in (*sums, *means)):
        # Then no sum tells anything; the ladder says which entries are finite, and which not.
        return "" if spread or not any(math.isfinite(x) for x in means) else _DIFFER
    size = sum(f["mine"][1] for f in flags) / len(flags)
    rounding = _rounding(flags)
    own = 0.0 if rounding is None else torch.finfo(rounding[1]).eps
    allowed = AVERAGED * (len(flags) + 2) * max(own, *(f["eps"] for f in flags)) * size
    if not spread and max(means) - min(means) > allowed:
        return _DIFFER
    of = flags[0].get("of", len(flags))
    if spread and any(f["of"] != of for f in flags):
        return _CHANGED
    if abs(sum(sums) / of - (sum(means) if spread else means[0])) <= allowed:
        return ""
    hooks = sorted({h for f in flags for h in f["hooks"]})
    by = f" It is sent by {', '.join(hooks)}, which may round or change it." if hooks else ""
    return f"{_CHANGED}{by}"


_ROUNDED = (
    "{} sends gradients in {}. The verdict is on the mean of those of the processes; what the "
    "optimizer takes is that, rounded."
)
_OTHER_LEAVES = (
    "The processes judge other parameters in this step: of none are the parts of all known. "
    "Give every process the same `wrt`, and the same modules to DistributedDataParallel."
)
_DIFFER = (
    "The gradients of the processes are not equal after this call: they are of different steps, or "
    "were not averaged."
)
_CHANGED = (
    "The gradient that the processes were given is not the mean of theirs within rounding, so that "
    "it is the gradient of no program that clarke has recorded."
)


def checksum(
    parts: Sequence[tuple[int, torch.Tensor | None]], weights: torch.Tensor
) -> tuple[float, float]:
    """Of numbered gradients; see `Sums`."""
    found = Sums(weights)
    for number, gradient in parts:
        if gradient is not None:
            found.add(number, gradient)
    return found.value()


class Sums:
    """A fixed linear function of numbered gradients, and the sum of sizes that bounds it.

    Linear, so that it tells a mean from the means of its parts: weights are incommensurable, and
    what is no mean passes with no chance but an adversary's.
    """

    def __init__(self, weights: torch.Tensor) -> None:
        self._weights = weights
        self._total: list[torch.Tensor] = []
        self._size: list[torch.Tensor] = []

    def add(self, number: int, gradient: torch.Tensor, start: int = 0) -> None:
        """Add a gradient, or some of its entries in a row, the first of which is entry `start`."""
        flat = plain(gradient).reshape(-1)
        own = self._weights.to(flat.device)
        at = 0
        while at < len(flat):
            block, offset = divmod(start + at, BLOCK)
            piece = flat[at : at + BLOCK - offset].to(torch.float64)
            factor = math.cos(number * math.sqrt(2) + block * math.sqrt(3))
            self._total.append(factor * (piece @ own[offset : offset + len(piece)]))
            self._size.append(piece.abs().sum())
            at += len(piece)

    def value(self) -> tuple[float, float]:
        """Both numbers."""
        if not self._total:
            return 0.0, 0.0
        device = self._total[0].device
        return (
            float(torch.stack([t.to(device) for t in self._total]).sum()),
            float(torch.stack([s.to(device) for s in self._size]).sum()),
        )


def packed(part: Part, keys: Sequence[int], gathered: Mapping[int, int] = _NONE) -> bytes:
    """A program, to be sent, or why it cannot be.

    Args:
        part: What this process has.
        keys: The numbers of its parameters.
        gathered: By identity, the numbers of parameters that are not sent with it.
    """
    try:
        if part.case.opened is not None:
            raise UnsupportedError("it detaches values that are computed from parameters")
        trace = part.case.trace()
        if trace.applied:
            own = trace.applied[0]
            raise UnsupportedError(
                f"the derivative of {own.name} at {own.location} is its author's code"
            )
        trace, apart = _without_gathered(trace, gathered)
        step = pack_step(trace, part.case.slots, part.local)
    except ClarkeError as error:
        return dumped({"why": f"A program touches kinks and cannot be sent: {error}"}) + b"\n"
    return dumped({"why": "", "keys": list(keys), "apart": apart}) + b"\n" + step


def _without_gathered(
    trace: Trace, gathered: Mapping[int, int]
) -> tuple[Trace, list[tuple[int, int]]]:
    """A trace without the values of parameters that are sent apart, and which slots these are."""
    externals, apart = dict(trace.externals), []
    for slot, e in trace.externals.items():
        if e.gathered is None:
            continue
        if id(e.gathered) not in gathered:
            raise UnsupportedError("it reads a parameter of another sharded model")
        if e.tensor._version != e.version:
            raise UnsupportedError(f"a parameter read at {e.location} has been changed since")
        nothing = torch.zeros(0, dtype=e.tensor.dtype, requires_grad=e.tensor.requires_grad)
        externals[slot] = replace(e, tensor=nothing, version=nothing._version, gathered=None)
        apart.append((slot, gathered[id(e.gathered)]))
    return replace(trace, externals=MappingProxyType(externals)), apart


def _unpacked(raw: bytes, wholes: Mapping[int, torch.Tensor]) -> tuple[Any, list[int]]:
    head, _, step = raw.partition(b"\n")
    told = loaded(head)
    if told["why"]:
        raise UnsupportedError(told["why"])
    stored = unpack_stored(step, "a message")
    if told["apart"]:
        stored = with_parameters(stored, {slot: wholes[number] for slot, number in told["apart"]})
    return stored, told["keys"]


def bundle(units: Sequence[bytes]) -> bytes:
    """Several packed programs as one message."""
    return dumped({"sizes": [len(u) for u in units]}) + b"\n" + b"".join(units)


def unbundled(raw: bytes) -> list[bytes]:
    """The packed programs of a message."""
    head, _, rest = raw.partition(b"\n")
    units, at = [], 0
    for size in loaded(head)["sizes"]:
        units.append(rest[at : at + size])
        at += size
    return units


def remember(part: Part, packed: bytes) -> None:
    """Keep a program for the calls that may add to the same gradient."""
    group = part.group
    if group is None:
        return
    group.programs.append(packed)
    if sum(len(p) for p in group.programs) > POST_BYTES:
        forget(part, "the programs of its parts are too large to keep")


def forget(part: Part, why: str) -> None:
    """Let no later call be judged as if this one were known."""
    if part.group is not None:
        part.group.programs.clear()
        part.group.unsent = part.group.unsent or why


def answer(decision: Decision, element: Mapping[int, torch.Tensor]) -> bytes:
    """A decision as a message, with a correct gradient by parameter."""
    content = {
        "verdict": decision.verdict.name,
        "reason": decision.reason,
        "theorem": decision.theorem,
        "culprits": [
            [
                c.operation,
                [c.location.module, c.location.file, c.location.line, c.location.function],
                c.reason,
            ]
            for c in decision.culprits
        ],
        "notes": list(decision.notes),
        "cures": list(decision.cures),
        "out_of_time": decision.out_of_time,
    }
    return pack(content, {f"element.{k}": e for k, e in element.items()})


def dumped(content: dict[str, Any]) -> bytes:
    """Plain data as a message."""
    return json.dumps(content).encode("ascii")


def loaded(raw: bytes) -> dict[str, Any]:
    """The plain data of a message."""
    found: dict[str, Any] = json.loads(raw)
    return found
