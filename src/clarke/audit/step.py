"""What an audit remembers of one backward call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clarke.capture import Location
    from clarke.decide import Culprit
    from clarke.report import KinkSummary
    from clarke.verdict import Verdict


@dataclass(frozen=True)
class Step:
    """One backward call under audit; holds no tensors.

    Attributes:
        number: From 1, counting every call, also those not looked at.
        verdict: On the gradient of this call alone; None if it was not looked at.
        reason: Explanation in words.
        theorem: The argument used.
        kinks: Touched kinks by place.
        culprits: Operations that the verdict names.
        seconds: What judging cost (recording the forward pass not included).
        location: The user's line that called backward.
        looked: Whether the call was judged.
        group: Number of the first call whose gradient the same ``.grad`` accumulates; the call's
            own number if it is the first, or if it was `torch.autograd.grad`.
        joint: Verdict on the sum that ``.grad`` holds after this call; None if not looked at.
        joint_reason: Explanation of `joint` where it differs from `verdict`.
        repaired: The gradient was replaced by a correct one.
        cures: What to write instead.
        ignored: Why it does not count, from a ``# clarke: ignore`` in the code, and its line; "" if
            it does.
    """

    number: int
    verdict: Verdict | None
    reason: str
    theorem: str
    kinks: tuple[KinkSummary, ...]
    culprits: tuple[Culprit, ...]
    seconds: float
    location: Location
    looked: bool
    group: int
    joint: Verdict | None
    joint_reason: str = ""
    repaired: bool = False
    cures: tuple[str, ...] = ()
    ignored: str = ""

    @classmethod
    def unseen(cls, number: int, location: Location, reason: str) -> Step:
        """A call that was not looked at, because of `reason`."""
        return cls(
            number=number,
            verdict=None,
            reason=reason,
            theorem="",
            kinks=(),
            culprits=(),
            seconds=0.0,
            location=location,
            looked=False,
            group=number,
            joint=None,
        )

    @property
    def correct(self) -> bool | None:
        """`Verdict.correct` of this call's gradient; None if not looked at or not decided."""
        return None if self.verdict is None else self.verdict.correct

    def to_dict(self) -> dict[str, Any]:
        """The step as plain data for JSON."""
        return {
            "number": self.number,
            "verdict": None if self.verdict is None else self.verdict.name,
            "correct": self.correct,
            "reason": self.reason,
            "theorem": self.theorem,
            "kinks": [dict(vars(k)) for k in self.kinks],
            "culprits": [c.to_dict() for c in self.culprits],
            "seconds": self.seconds,
            "file": self.location.file,
            "line": self.location.line,
            "looked": self.looked,
            "group": self.group,
            "joint": None if self.joint is None else self.joint.name,
            "joint_reason": self.joint_reason,
            "repaired": self.repaired,
            "cures": list(self.cures),
            "ignored": self.ignored,
        }
