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
from typing import TYPE_CHECKING, Any

import torch

from clarke.audit.post import Post
from clarke.capture import Location
from clarke.decide import Decision
from clarke.decide.model import Culprit
from clarke.errors import CaptureError, ClarkeError, UnsupportedError, in_a_line
from clarke.numerics import AVERAGED, POST_PATIENCE, POST_SECONDS
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
    from collections.abc import Sequence

    from clarke.audit.engine import BackwardCall
    from clarke.audit.judge import Case
    from clarke.decide import Settings

_BLOCK = 1 << 16

ALONE = (
    "Several processes train together here (torch.distributed): the gradient that the optimizer "
    "takes is put together from all of theirs, and clarke sees those of one. Audit the program as "
    "a single process, on the whole batch."
)
_LATER = (
    "Under no_sync this gradient is a part of one that is put together over all processes later, "
    "and it stands at kinks, which are not kept until then."
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
        for p in (p for _, ps in owners for p in ps):
            if wanted is None or id(p) in wanted:
                shared.setdefault(id(p), p)
        if not ids <= shared.keys():
            raise CaptureError(_BESIDE)
        hooks = sorted({h for r, _ in owners for h in comm_hooks(r)})
        return Meeting(self, tuple(shared.values()), later="no_sync" in states, hooks=hooks)

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
        early: SMOOTH, where that is known already.
        why: Why its part cannot be judged together with others, if a kink was touched anywhere.
        smooth: It stands at no kink that matters, with all that was accumulated before.
    """

    case: Case
    local: tuple[torch.Tensor, ...]
    early: Decision | None
    why: str
    smooth: bool


class Meeting:
    """One backward call of which every process has a part.

    Attributes:
        leaves: The parameters that are judged: all that the processes share.
        later: Nothing is put together yet.
    """

    def __init__(
        self, ranks: Ranks, leaves: tuple[torch.Tensor, ...], *, later: bool, hooks: list[str]
    ) -> None:
        self.leaves = leaves
        self.later = later
        self._ranks = ranks
        self._hooks = hooks
        self._numbers = {id(x): i for i, x in enumerate(leaves)}
        self._before = (0.0, 0.0)

    def begin(self) -> None:
        """Look at what ``.grad`` holds before the call."""
        self._before = _checksum(list(enumerate(x.grad for x in self.leaves)))

    def part(self, part: Part) -> Decision:
        """What is said of a call whose gradient is put together later, with others."""
        if part.early is None or part.early.verdict is not Verdict.SMOOTH:
            return Decision(Verdict.UNDECIDED, _LATER)
        mine = _checksum(list(zip(self._numbered(part), part.local, strict=True)))
        now = _checksum(list(enumerate(x.grad for x in self.leaves)))
        size = mine[1] + self._before[1]
        if abs(now[0] - mine[0] - self._before[0]) > AVERAGED * self._eps() * size:
            return Decision(Verdict.UNDECIDED, _AFTER_ALL)
        return part.early

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
        sums = _checksum(list(zip(own, part.local, strict=True)))
        flags = {
            "smooth": part.smooth,
            "why": "",
            "apart": part.why,
            "mine": [a + b for a, b in zip(sums, self._before, strict=True)],
            "mean": list(_checksum(list(enumerate(gradient)))),
            "eps": self._eps(),
            "hooks": self._hooks,
        }
        try:
            plan = self._plan(post, name, before, flags)
            if plan["why"]:
                return Decision(Verdict.UNDECIDED, plan["why"])
            if plan["smooth"] and part.early is not None:
                return part.early
            return self._all_together(post, name, part, gradient, settings, seconds)
        except ClarkeError as error:
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

    def _all_together(
        self,
        post: Post,
        name: str,
        part: Part,
        gradient: tuple[torch.Tensor, ...],
        settings: Settings,
        seconds: float | None,
    ) -> Decision:
        sent = _packed(part, self._numbered(part))
        patience = POST_SECONDS + (POST_PATIENCE if seconds is None else seconds)
        if post.rank:
            post.send(f"{name}/program/{post.rank}", sent)
            return self._told(post.receive([f"{name}/verdict"], patience)[0], gradient)
        others = [f"{name}/program/{r}" for r in range(1, post.world)]
        order: tuple[int, ...] = ()
        try:
            found = [_unpacked(raw) for raw in (sent, *post.receive(others, POST_SECONDS))]
            step, order = mean_of(
                [s for s, _ in found], [k for _, k in found], dict(enumerate(gradient))
            )
            decision = judge_stored(step, seconds, settings)
        except CaptureError as error:
            post.send(f"{name}/verdict", _answer(Decision(Verdict.UNDECIDED, str(error)), ()))
            raise
        except Exception as error:  # noqa: BLE001 - the others wait for an answer
            why = str(error) if isinstance(error, ClarkeError) else in_a_line(error)
            decision = Decision(Verdict.UNDECIDED, why)
        answer = _answer(decision, order)
        post.send(f"{name}/verdict", answer)
        post.drop(others)
        told = self._told(answer, gradient)
        return _with_proof(decision, told)

    def _told(self, answer: bytes, gradient: tuple[torch.Tensor, ...]) -> Decision:
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
    why = next((f["why"] for f in flags if f["why"]), "") or _not_the_mean(flags)
    smooth = all(f.get("smooth") for f in flags)
    if not (why or smooth):
        why = next((f["apart"] for f in flags if f["apart"]), "")
    return {"why": why, "smooth": smooth}


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


_DIFFER = (
    "The gradients of the processes are not equal after this call: they are of different steps, or "
    "were not averaged."
)
_CHANGED = (
    "The gradient that the processes were given is not the mean of theirs within rounding, so that "
    "it is the gradient of no program that clarke has recorded."
)


def _checksum(parts: Sequence[tuple[int, torch.Tensor | None]]) -> tuple[float, float]:
    """A fixed linear function of numbered gradients, and the sum of sizes that bounds it.

    Linear, so that it tells a mean from the means of its parts: weights are incommensurable, and
    what is no mean passes with no chance but an adversary's.
    """
    total, size = [], []
    with torch.no_grad():
        weights = torch.cos(torch.arange(_BLOCK, dtype=torch.float64))
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


def _answer(decision: Decision, order: Sequence[int]) -> bytes:
    element = decision.element or ()
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
    return pack(content, {f"element.{k}": e for k, e in zip(order, element, strict=False)})


def _with_proof(decision: Decision, told: Decision) -> Decision:
    """Rank 0 holds the proof and the kinks of all; what the others do with it, it does too."""
    return replace(decision, element=told.element)


def _dumped(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode("ascii")


def _loaded(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw)
    return found
