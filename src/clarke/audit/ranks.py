"""One verdict on a step of several processes: DDP averages their gradients, and theirs is judged.

Every process records its own program. After a backward pass each tells, in a few numbers, whether
its program touched a kink that may matter, and a checksum of its gradients before and after they
were averaged. Where nothing was touched anywhere, the mean is smooth and nothing else is sent.
Else the programs are sent to rank 0, which judges the mean of them at once, against the gradient
that the optimizer is to take, and tells the others.
"""

from __future__ import annotations

import json
import math
import weakref
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.post import Post
from clarke.capture import Location
from clarke.decide import Decision
from clarke.decide.model import Culprit
from clarke.errors import CaptureError, ClarkeError, UnsupportedError, in_a_line
from clarke.fast import all_finite
from clarke.numerics import AVERAGED, POST_BYTES, POST_PATIENCE, POST_SECONDS
from clarke.proof import judge_stored, mean_of, pack, pack_step, unpack, unpack_stored
from clarke.torch_private import (
    comm_hooks,
    is_of_replica,
    is_sharded,
    processes,
    replicas,
    shared_parameters,
    step_number,
    why_not_shared,
)
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.audit.engine import BackwardCall
    from clarke.audit.groups import Group
    from clarke.audit.judge import Case
    from clarke.decide import Settings

_BLOCK = 1 << 16
_DIGEST = 1 << 4

ALONE = (
    "Several processes train together here (torch.distributed): the gradient that the optimizer "
    "takes is put together from all of theirs, and clarke sees those of one. Audit the program as "
    "a single process, on the whole batch."
)
_LATER = (
    "Under no_sync this gradient is a part of one that is put together over all processes later, "
    "and it stands at kinks: the sum is judged then."
)
_AFTER_ALL = (
    "The backward pass ran under no_sync, and .grad is not what this process has added to it: "
    "no_sync has to hold the forward pass as well, or the gradients are put together at once."
)
_JOINED = (
    "Inside of join() some processes take part in an averaging without a step of their own, so "
    "that there is no joint step to judge."
)
_GROUPED = (
    "This DistributedDataParallel averages over some of the processes only, which clarke does not "
    "follow."
)
_BESIDE = (
    "Beside parameters whose gradients DistributedDataParallel averages, this call reaches leaves "
    "of this process alone. Name the former in `wrt`, to judge their gradient."
)


_UNNUMBERED = (
    "torch.distributed did not average anything in this call, or does not say which averaging it "
    "was, so that the processes cannot tell which steps of theirs belong together."
)


class NotSharedError(CaptureError):
    """A call whose gradients no other process has a part in, or not yet."""


class Ranks:
    """The processes that train with this one, as an audit sees them.

    Attributes:
        lost: Why no other process is asked any more; "" while they answer.
    """

    def __init__(self) -> None:
        self.lost = ""
        self._sharded = False
        self._replicas: list[weakref.ref[Any]] = []
        self._looked: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        self._post: Post | None = None
        self._last = ""
        self._weights: torch.Tensor | None = None

    def weights(self) -> torch.Tensor:
        """What checksums multiply with, computed once."""
        if self._weights is None:
            self._weights = torch.cos(torch.arange(_BLOCK, dtype=torch.float64))
        return self._weights

    def aside(self, root: object = None) -> str:
        """Why nothing is to be recorded; asked when a module begins to run, with that module."""
        if processes() <= 1:
            return ""
        if isinstance(root, torch.nn.Module) and root not in self._looked:
            self._looked.add(root)
            self._sharded = self._sharded or is_sharded(root)
            known = [r() for r in self._replicas]
            new = [r for r in replicas(root) if not any(r is k for k in known)]
            self._replicas += [weakref.ref(r) for r in new]
        return ALONE if self._sharded or not self._replicas else ""

    def _alive(self) -> list[Any]:
        found = [r() for r in self._replicas]
        return [r for r in found if r is not None]

    def meeting(
        self,
        call: BackwardCall,
        leaves: Sequence[torch.Tensor],
        wrt: Sequence[torch.Tensor] | None,
    ) -> Meeting:
        """What this call is to the other processes.

        Raises:
            NotSharedError: They have no part in it.
            CaptureError: They have, and it cannot be judged.
        """
        ids = {id(x) for x in leaves}
        owners = [(r, shared_parameters(r)) for r in self._alive()]
        owners = [(r, ps) for r, ps in owners if not ids.isdisjoint([id(p) for p in ps])]
        if not owners or not call.accumulates:
            raise NotSharedError(ALONE)
        states = {why_not_shared(r) for r, _ in owners}
        for state, why in (("join", _JOINED), ("group", _GROUPED)):
            if state in states:
                raise NotSharedError(why)
        if self.lost:
            raise NotSharedError(self.lost)
        wanted = None if wrt is None else {id(x) for x in wrt}
        shared: dict[int, torch.Tensor] = {}
        which = []
        for n, p in enumerate(p for _, ps in owners for p in ps):
            if wanted is None or id(p) in wanted:
                shared.setdefault(id(p), p)
                which.append((n, tuple(p.shape), str(p.dtype)))
        if not ids <= shared.keys():
            raise CaptureError(_BESIDE)
        hooks = sorted({h for r, _ in owners for h in comm_hooks(r)})
        names = blake2b(repr(which).encode(), digest_size=_DIGEST).hexdigest()
        later = "no_sync" in states
        return Meeting(self, tuple(shared.values()), later=later, hooks=hooks, names=names)

    def expects(self, call: BackwardCall) -> bool:
        """Whether other processes may wait to hear of a call that this one cannot judge."""
        if self.lost or not call.accumulates:
            return False
        return any(not why_not_shared(r) for r in self._alive())

    def excuse(self, why: str) -> None:
        """Tell the others that this process cannot judge the step."""
        try:
            post, name, _ = self.next()
            told = _dumped({"why": f"Rank {post.rank} could not judge its part: {why}"})
            if post.rank:
                post.send(f"{name}/flags/{post.rank}", told)
            else:
                post.send(f"{name}/plan", told)
        except ClarkeError as error:
            self.lost = str(error)

    def next(self) -> tuple[Post, str, str]:
        """Where to tell of a step, under which name, and the name of the one before it.

        The name is how many collectives the processes have gone through: whoever comes out of the
        same averaging says the same, whatever else was judged where.

        Raises:
            CaptureError: There is no such number, or nothing was averaged since.
        """
        if self._post is None:
            self._post = Post()
        name = next((step_number(r) for r in self._alive() if not why_not_shared(r)), "")
        if not name or name == self._last:
            raise CaptureError(_UNNUMBERED)
        before, self._last = self._last, name
        return self._post, name, before


@dataclass(frozen=True)
class Part:
    """What one process has of a step.

    Attributes:
        case: Its program.
        local: The gradient that it computed, by leaf of the case.
        early: What the quick judge found, if it was asked.
        group: The calls that this one adds up with.
    """

    case: Case
    local: tuple[torch.Tensor, ...]
    early: Decision | None
    group: Group | None

    @property
    def is_smooth(self) -> bool:
        """Whether this call stands at no kink that matters."""
        early = self.early
        return early is not None and early.verdict is Verdict.SMOOTH and all_finite(self.local)

    @property
    def fresh(self) -> bool:
        """Whether it adds up with no other."""
        return self.group is None or not self.group.size

    @property
    def apart(self) -> str:
        """Why what it adds up with is not known."""
        group = self.group
        if group is None:
            return ""
        why = group.broken or group.doubtful or group.unsent
        if not why and len(group.programs) < len(group.parts):
            why = "the program of an earlier call was not kept"
        return why and f"What .grad adds up over calls and processes cannot be judged: {why}."


class Meeting:
    """One backward call of which every process has a part.

    Attributes:
        leaves: The parameters that are judged: all that the processes share.
        later: Nothing is put together yet.
    """

    def __init__(
        self,
        ranks: Ranks,
        leaves: tuple[torch.Tensor, ...],
        *,
        later: bool,
        hooks: list[str],
        names: str,
    ) -> None:
        self.leaves = leaves
        self.later = later
        self._ranks = ranks
        self._hooks = hooks
        self._names = names
        self._numbers = {id(x): i for i, x in enumerate(leaves)}
        self._before = (0.0, 0.0)

    def begin(self) -> None:
        """Look at what ``.grad`` holds before the call."""
        self._before = self._checksum(list(enumerate(x.grad for x in self.leaves)))

    def part(self, part: Part) -> Decision:
        """What is said of a call whose gradient is put together later, with others."""
        if part.early is None or not part.is_smooth:
            _remember(part, _packed(part, self._numbered(part)))
            return Decision(Verdict.UNDECIDED, _LATER)
        mine = self._checksum(list(zip(self._numbered(part), part.local, strict=True)))
        now = self._checksum(list(enumerate(x.grad for x in self.leaves)))
        size = mine[1] + self._before[1]
        if abs(now[0] - mine[0] - self._before[0]) > AVERAGED * self._eps() * size:
            return Decision(Verdict.UNDECIDED, _AFTER_ALL)
        return part.early

    def _checksum(self, parts: Sequence[tuple[int, torch.Tensor | None]]) -> tuple[float, float]:
        return _checksum(parts, self._ranks.weights())

    def _eps(self) -> float:
        return max((torch.finfo(x.dtype).eps for x in self.leaves), default=0.0)

    def averaged(self) -> tuple[torch.Tensor, ...]:
        """The gradient that the optimizer is to take, by leaf."""
        return tuple(
            torch.zeros_like(x, requires_grad=False) if x.grad is None else x.grad.detach().clone()
            for x in self.leaves
        )

    def judge(
        self,
        part: Part,
        gradient: tuple[torch.Tensor, ...],
        settings: Settings,
        seconds: float | None,
    ) -> Decision:
        """The verdict of all processes on `gradient`, the same on each.

        Raises:
            ClarkeError: They do not answer.
        """
        post, name, before = self._ranks.next()
        own = self._numbered(part)
        sums = self._checksum(list(zip(own, part.local, strict=True)))
        flags = {
            "smooth": part.is_smooth
            and not part.apart
            and not (part.group and part.group.programs),
            "fresh": part.fresh,
            "why": "",
            "apart": part.apart,
            "mine": [a + b for a, b in zip(sums, self._before, strict=True)],
            "mean": list(self._checksum(list(enumerate(gradient)))),
            "eps": self._eps(),
            "hooks": self._hooks,
            "leaves": self._names,
        }
        try:
            plan = self._plan(post, name, before, flags)
            if plan["why"]:
                _forget(part, "an earlier call could not be judged over all processes")
                return Decision(Verdict.UNDECIDED, plan["why"])
            if plan["smooth"] and part.early is not None:
                return part.early
            job = _Job(post, name, settings, seconds, fresh=plan["fresh"])
            return self._all_together(job, part, gradient)
        except ClarkeError as error:
            _forget(part, "an earlier call could not be judged over all processes")
            self._ranks.lost = (
                "The processes of this training could not agree on an earlier step, so that clarke "
                f"asks them no more. {error}"
            )
            raise

    def _numbered(self, part: Part) -> list[int]:
        return [self._numbers[id(x)] for x in part.case.leaves]

    def _plan(self, post: Post, name: str, before: str, flags: dict[str, Any]) -> dict[str, Any]:
        if post.rank:
            post.send(f"{name}/flags/{post.rank}", _dumped(flags))
            return _loaded(post.receive([f"{name}/plan"], POST_SECONDS)[0])
        others = [f"{name}/flags/{r}" for r in range(1, post.world)]
        try:
            plan = _planned([flags, *map(_loaded, post.receive(others, POST_SECONDS))])
        except ClarkeError as error:
            post.send(f"{name}/plan", _dumped({"why": str(error)}))
            raise
        post.send(f"{name}/plan", _dumped(plan))
        # Who told of this step has read all about the one before it.
        post.drop([*others, f"{before}/plan", f"{before}/verdict"])
        return plan

    def _all_together(self, job: _Job, part: Part, gradient: tuple[torch.Tensor, ...]) -> Decision:
        post, name = job.post, job.name
        own = _packed(part, self._numbered(part))
        sent = _bundle([*(part.group.programs if part.group else ()), own])
        _remember(part, own)
        if len(sent) > POST_BYTES / post.world:
            why = f"What rank {post.rank} recorded takes {len(sent)} bytes, too many to be sent."
            sent = _bundle([_dumped({"why": why}) + b"\n"])
        patience = POST_SECONDS + (POST_PATIENCE if job.seconds is None else job.seconds)
        if post.rank:
            post.send(f"{name}/program/{post.rank}", sent)
            return _told(post.receive([f"{name}/verdict"], patience)[0], gradient)
        others = [f"{name}/program/{r}" for r in range(1, post.world)]
        try:
            raw = [sent, *post.receive(others, POST_SECONDS)]
        except CaptureError as error:
            post.send(f"{name}/verdict", _answer(Decision(Verdict.UNDECIDED, str(error)), {}))
            raise
        decision, element = _judged(raw, job, gradient)
        answer = _answer(decision, element)
        post.send(f"{name}/verdict", answer)
        post.drop(others)
        # Rank 0 holds the proof and the kinks of all; what the others do with it, it does too.
        return replace(decision, element=_told(answer, gradient).element)

    def replace(self, element: Sequence[torch.Tensor], group: Group | None) -> None:
        """Put a correct gradient in the place of what all processes were given."""
        if group is not None:
            group.unsent = "an earlier part of it was repaired"
        with torch.no_grad():
            for leaf, e in zip(self.leaves, element, strict=True):
                value = e.to(leaf.dtype).reshape(leaf.shape)
                if leaf.grad is None:
                    leaf.grad = value.clone() if bool(value.any()) else None
                else:
                    leaf.grad.copy_(value)


@dataclass(frozen=True)
class _Job:
    """Programs that are to be judged together: where, within which limits, and of how many calls.

    `fresh` says that the gradient is that of one call of each process.
    """

    post: Post
    name: str
    settings: Settings
    seconds: float | None
    fresh: bool


def _judged(
    raw: Sequence[bytes], job: _Job, gradient: tuple[torch.Tensor, ...]
) -> tuple[Decision, dict[int, torch.Tensor]]:
    """The verdict on the programs of all, and a correct gradient by parameter where there is one.

    Where calls add up, those that were smooth everywhere have sent no program. By the sum rule,
    which is an equality there, they move gradient and subdifferential alike: the sum of the others
    is judged, against what these have added to the gradient.
    """
    try:
        steps = [(r, *_unpacked(unit)) for r, units in enumerate(raw) for unit in _unbundled(units)]
        found = dict(enumerate(gradient)) if job.fresh else None
        step, order = mean_of([(r, s, k) for r, s, k in steps], of=job.post.world, gradient=found)
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


def _told(answer: bytes, gradient: tuple[torch.Tensor, ...]) -> Decision:
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


def _planned(flags: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all processes are to do, from what each of them tells."""
    why = next((f["why"] for f in flags if f["why"]), "")
    if not why and len({f["leaves"] for f in flags}) > 1:
        why = _OTHER_LEAVES
    why = why or _not_the_mean(flags)
    smooth = all(f.get("smooth") for f in flags)
    if not (why or smooth):
        why = next((f["apart"] for f in flags if f["apart"]), "")
    return {"why": why, "smooth": smooth, "fresh": all(f.get("fresh") for f in flags)}


def _not_the_mean(flags: Sequence[dict[str, Any]]) -> str:
    """Whether the gradients that the processes were given are one, and the mean of theirs."""
    sums, means = [f["mine"][0] for f in flags], [f["mean"][0] for f in flags]
    if not all(math.isfinite(x) for x in (*sums, *means)):
        # Then no sum tells anything; the ladder says which entries are finite, and which not.
        return "" if not any(math.isfinite(x) for x in means) else _DIFFER
    size = sum(f["mine"][1] for f in flags) / len(flags)
    allowed = AVERAGED * (len(flags) + 2) * max(f["eps"] for f in flags) * size
    if max(means) - min(means) > allowed:
        return _DIFFER
    if abs(sum(sums) / len(sums) - means[0]) <= allowed:
        return ""
    hooks = sorted({h for f in flags for h in f["hooks"]})
    by = f" It is sent by {', '.join(hooks)}, which may round or change it." if hooks else ""
    return f"{_CHANGED}{by}"


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


def _checksum(
    parts: Sequence[tuple[int, torch.Tensor | None]], weights: torch.Tensor
) -> tuple[float, float]:
    """A fixed linear function of numbered gradients, and the sum of sizes that bounds it.

    Linear, so that it tells a mean from the means of its parts: weights are incommensurable, and
    what is no mean passes with no chance but an adversary's.
    """
    total, size = [], []
    with torch.no_grad():
        for number, gradient in parts:
            if gradient is None or not gradient.numel():
                continue
            plain = gradient.detach()
            flat = (plain if plain.layout == torch.strided else plain.to_dense()).reshape(-1)
            own = weights.to(flat.device)
            for block, start in enumerate(range(0, len(flat), _BLOCK)):
                piece = flat[start : start + _BLOCK].to(torch.float64)
                factor = math.cos(number * math.sqrt(2) + block * math.sqrt(3))
                total.append(factor * (piece @ own[: len(piece)]))
                size.append(piece.abs().sum())
        if not total:
            return 0.0, 0.0
        device = total[0].device
        return (
            float(torch.stack([t.to(device) for t in total]).sum()),
            float(torch.stack([s.to(device) for s in size]).sum()),
        )


def _packed(part: Part, keys: Sequence[int]) -> bytes:
    """A program, to be sent, or why it cannot be."""
    try:
        if part.case.opened is not None:
            raise UnsupportedError("it detaches values that are computed from parameters")
        trace = part.case.trace()
        own = [a for a in trace.applied if not is_of_replica(a.function)]
        if own:
            raise UnsupportedError(
                f"the derivative of {own[0].name} at {own[0].location} is its author's code"
            )
        step = pack_step(trace, part.case.slots, part.local)
    except ClarkeError as error:
        return _dumped({"why": f"A program touches kinks and cannot be sent: {error}"}) + b"\n"
    return _dumped({"why": "", "keys": list(keys)}) + b"\n" + step


def _unpacked(raw: bytes) -> tuple[Any, list[int]]:
    head, _, step = raw.partition(b"\n")
    told = _loaded(head)
    if told["why"]:
        raise UnsupportedError(told["why"])
    return unpack_stored(step, "a message"), told["keys"]


def _bundle(units: Sequence[bytes]) -> bytes:
    return _dumped({"sizes": [len(u) for u in units]}) + b"\n" + b"".join(units)


def _unbundled(raw: bytes) -> list[bytes]:
    head, _, rest = raw.partition(b"\n")
    units, at = [], 0
    for size in _loaded(head)["sizes"]:
        units.append(rest[at : at + size])
        at += size
    return units


def _remember(part: Part, packed: bytes) -> None:
    """Keep a program for the calls that may add to the same gradient."""
    group = part.group
    if group is None:
        return
    group.programs.append(packed)
    if sum(len(p) for p in group.programs) > POST_BYTES:
        _forget(part, "the programs of its parts are too large to keep")


def _forget(part: Part, why: str) -> None:
    if part.group is not None:
        part.group.programs.clear()
        part.group.unsent = part.group.unsent or why


def _answer(decision: Decision, element: Mapping[int, torch.Tensor]) -> bytes:
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


def _dumped(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode("ascii")


def _loaded(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw)
    return found
