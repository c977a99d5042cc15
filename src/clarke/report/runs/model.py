"""What is kept of an audited run: one record for each backward call, plain data only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarke.report.model import KinkSummary
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

# From the worst to the best: what a summary names first.
SEVERITY = (
    Verdict.NOT_CLARKE,
    Verdict.NONFINITE,
    Verdict.NOT_LIPSCHITZ,
    Verdict.UNDECIDED,
    Verdict.SURROGATE,
    Verdict.CLARKE,
    Verdict.BOULIGAND,
    Verdict.SMOOTH,
)


@dataclass(frozen=True)
class CulpritRecord:
    """An operation that a verdict names: operator, module path, file and line, and why."""

    operation: str
    module: str
    file: str
    line: int
    reason: str

    @property
    def place(self) -> str:
        """Module path and ``file:line``."""
        spot = f"{Path(self.file).name}:{self.line}"
        return f"{self.module} ({spot})" if self.module else spot


@dataclass(frozen=True)
class Picture:
    """A gradient of one to three numbers beside the set that it should be in.

    Attributes:
        gradient: AD's gradient.
        vertices: Points whose convex hull contains the Clarke subdifferential: the gradients of
            all selections that could not be excluded.
        element: A correct gradient, if one is known.
    """

    gradient: tuple[float, ...]
    vertices: tuple[tuple[float, ...], ...]
    element: tuple[float, ...] | None = None


@dataclass(frozen=True)
class StepRecord:
    """One backward call.

    Attributes:
        number: Its number in the run.
        verdict: On the gradient of this call alone; None where it was not looked at.
        reason: Explanation in words.
        theorem: The argument used.
        kinks: Touched kinks by place.
        culprits: Operations that the verdict names.
        seconds: Time that the audit took for it.
        file: Where backward was called.
        line: The line there.
        group: Number of the first call of those whose gradients ``.grad`` adds up, if known.
        joint: Verdict on the sum in ``.grad`` after this call, None if not looked at.
        joint_reason: Explanation of `joint` where it differs.
        repaired: The gradient was replaced by a correct one.
        picture: Gradient and set, where both are small.
        cures: What to write instead.
        values: What was returned where it is farthest from right, and what is right.
        nonfinite: It holds NaN or infinity, and was left so.
        ignored: Why it does not count, from a ``# clarke: ignore`` in the code, and its line.
    """

    number: int
    verdict: Verdict | None
    reason: str = ""
    theorem: str = ""
    kinks: tuple[KinkSummary, ...] = ()
    culprits: tuple[CulpritRecord, ...] = ()
    seconds: float = 0.0
    file: str = ""
    line: int = 0
    group: int | None = None
    joint: Verdict | None = None
    joint_reason: str = ""
    repaired: bool = False
    picture: Picture | None = None
    cures: tuple[str, ...] = ()
    values: str = ""
    nonfinite: bool = False
    ignored: str = ""

    @property
    def outcome(self) -> Verdict | None:
        """The verdict on this call, unless the sum that it adds to is proved wrong.

        A sum that cannot be judged counts among the `Run.sums`, once somebody uses it.
        """
        return self.joint if self.joint is Verdict.NOT_CLARKE else self.verdict

    @property
    def why(self) -> str:
        """The reason of the outcome."""
        return self.reason if self.outcome is self.verdict else self.joint_reason

    @property
    def touched(self) -> int:
        """Number of touched kinks."""
        return sum(k.touched for k in self.kinks)

    @property
    def relevant(self) -> int:
        """Number of relevant kinks, as far as found out."""
        return sum(k.relevant or 0 for k in self.kinks)


@dataclass(frozen=True)
class Run:
    """A run as read from its folder.

    Attributes:
        folder: Where it was read from.
        settings: What it was started with: program, arguments, versions, options.
        steps: Its backward calls, in order.
        summary: What was written at its end; empty if it never got there.
        sources: Source text by file and line, as it was when the run was made.
        damaged: Lines that could not be read; at most the last of a killed run.
    """

    folder: Path
    settings: Mapping[str, Any]
    steps: tuple[StepRecord, ...]
    summary: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[tuple[str, int], str] = field(default_factory=dict)
    damaged: int = 0

    @property
    def finished(self) -> bool:
        """Whether the run reached its end, rather than being killed."""
        return bool(self.summary)

    @property
    def state(self) -> str:
        """What is to be said of a run that did not come to its end by itself; else ""."""
        if not self.finished:
            last = self.steps[-1] if self.steps else None
            at = f" Its last step was {last.number:,}." if last is not None else ""
            return f"Not finished: the run was ended from outside, or still goes on.{at}"
        if self.summary.get("status"):
            first = str(self.summary["ended"]).partition("\n")[0]  # a report follows in errors
            return f"The program ended early: {first.rstrip(': .')}."
        return ""

    @property
    def name(self) -> str:
        """The program's name, else the folder's."""
        program = str(self.settings.get("program", ""))
        return Path(program).name or self.folder.name

    def counts(self) -> dict[Verdict, int]:
        """How often each verdict occurred, the worst first; those that did not are left out."""
        found = Counter(s.outcome for s in self.steps)
        return {v: found[v] for v in SEVERITY if found[v]}

    @property
    def ignored(self) -> str:
        """How many findings do not count, and how many comments say so; "" for none."""
        said = [s.ignored for s in self.steps if s.ignored]
        return ignored_text(len(said), len(set(said)))

    def sums(self) -> dict[Verdict, int]:
        """As `counts`, for sums of several accumulated calls, as they stood after the last."""
        ends: dict[int, tuple[int, StepRecord]] = {}
        for s in self.steps:
            if s.group is not None:
                ends[s.group] = (ends.get(s.group, (0, s))[0] + 1, s)
        found = Counter(s.joint for n, s in ends.values() if n > 1 or s.joint is not s.verdict)
        return {v: found[v] for v in SEVERITY if found[v]}

    @property
    def looked(self) -> int:
        """Number of calls with a verdict."""
        return sum(s.outcome is not None for s in self.steps)


def ignored_text(findings: int, lines: int) -> str:
    """How many findings do not count, and how many comments in the code say so; "" for none."""
    if not findings:
        return ""
    many = f"{findings:,} {'does' if findings == 1 else 'do'} not count"
    return f"{many}: # clarke: ignore on {lines:,} line{'s' * (lines != 1)}"
