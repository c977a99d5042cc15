"""The report of one judged gradient: plain data for people and programs."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clarke.errors import InputError
from clarke.layout import laid
from clarke.proof import save_certificate
from clarke.report.text import places_text, report_lines

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import torch

    from clarke.decide import Certificate, Culprit
    from clarke.verdict import Verdict


@dataclass(frozen=True)
class KinkSummary:
    """The kinks of one operation in one place of the program.

    Attributes:
        operation: Operator name, such as ``relu``.
        module: Path of the module that ran it, "" outside of modules.
        file: The user's source file.
        line: The line in it.
        elements: Output elements seen.
        touched: Elements at which several pieces meet.
        relevant: Touched elements whose piece can change the gradient; None if not found out.
        choice: What autograd chose, in words.
        nonzero: For a maxpool after a ReLU, touched elements of a value other than zero; None
            where they were not told apart.
        slopes: A few of the slopes that AD took, where one argument varies. An audit keeps none.
        at: Which elements of the flattened output were touched, where these are few among many.
        rounded: Of the relevant ones, those whose tie exists by rounding alone, and not in float64;
            None where they were not told apart.
    """

    operation: str
    module: str
    file: str
    line: int
    elements: int
    touched: int
    relevant: int | None
    choice: str
    nonzero: int | None = None
    slopes: tuple[float, ...] = ()
    at: tuple[int, ...] = ()
    rounded: int | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of `clarke.check`, or of one audited backward call.

    Attributes:
        verdict: One of the eight verdicts.
        reason: Explanation in words.
        gradient: AD's gradient, one tensor per variable.
        kinks: Touched kinks by place.
        certificate: Re-checkable proof of a positive or negative verdict, else None.
        theorem: The argument used.
        culprits: Operations that the verdict names.
        element: A correct or finite gradient where AD's is not one.
        cures: What to write instead of what made the gradient wrong, or not finite.
        notes: Further sentences.
        seconds: What clarke's own work took, without the run that was recorded.
        out_of_time: Undecided because the time limit ended; more `seconds` may decide it.
        names: Of the variables, "" where one has none; empty where the gradient is right.
    """

    verdict: Verdict
    reason: str
    gradient: tuple[torch.Tensor, ...]
    kinks: tuple[KinkSummary, ...]
    certificate: Certificate | None = None
    theorem: str = ""
    culprits: tuple[Culprit, ...] = ()
    element: tuple[torch.Tensor, ...] | None = None
    notes: tuple[str, ...] = ()
    cures: tuple[str, ...] = ()
    seconds: float = 0.0
    out_of_time: bool = False
    names: tuple[str, ...] = ()

    @property
    def blamed(self) -> str:
        """The operations that the verdict names, with file and line; in one line."""
        return places_text(self.culprits)

    def bare(self) -> Report:
        """The same without tensors."""
        made = object.__new__(Report)
        made.__dict__.update(self.__dict__)
        made.__dict__.update(gradient=(), certificate=None, element=None)
        return made

    @property
    def correct(self) -> bool | None:
        """True if proved a Clarke gradient, False if proved not to be one, None otherwise."""
        return self.verdict.correct

    @property
    def touched(self) -> int:
        """Number of touched kinks."""
        return sum(k.touched for k in self.kinks)

    @property
    def relevant(self) -> int:
        """Number of relevant kinks, as far as found out."""
        return sum(k.relevant or 0 for k in self.kinks)

    @property
    def rounded(self) -> int:
        """Number of relevant kinks that are tied by rounding alone, as far as found out."""
        return sum(k.rounded or 0 for k in self.kinks)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; tensors of up to 64 elements are included."""
        certificate = self.certificate
        return {
            "verdict": self.verdict.name,
            "correct": self.correct,
            "reason": self.reason,
            "theorem": self.theorem,
            "touched": self.touched,
            "relevant": self.relevant,
            "rounded": self.rounded,
            "kinks": [vars(k) for k in self.kinks],
            "culprits": [c.to_dict() for c in self.culprits],
            "gradient": _values(self.gradient),
            "element": None if self.element is None else _values(self.element),
            "witnesses": None
            if certificate is None
            else [
                {
                    "direction": _values(w.direction),
                    "gradient": _values(w.gradient),
                    "weight": weight,
                    "rows": len(w.rows),
                }
                for w, weight in zip(certificate.witnesses, certificate.weights, strict=True)
            ],
            "cures": list(self.cures),
            "notes": list(self.notes),
            "seconds": self.seconds,
            "out_of_time": self.out_of_time,
            "names": list(self.names),
        }

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the proof to a file, which ``clarke verify`` and ``clarke_verify.py`` check.

        Raises:
            InputError: The verdict has no proof.
            UnsupportedError: The program holds what has no form in a file.
            ModifiedSinceError: Its tensors have changed since.
        """
        if self.certificate is None:
            raise InputError(
                f"{self.verdict.name} comes without a proof that could be saved. Look at "
                "report.certificate, which is None."
            )
        return save_certificate(self.certificate, path, verdict=self.verdict, theorem=self.theorem)

    def __str__(self) -> str:
        return laid(report_lines(self))

    def __repr__(self) -> str:
        """What a prompt shows: the same as `print`."""
        return str(self)

    def _repr_html_(self) -> str:
        """For notebooks: the text, in which nothing is HTML of its own, beside a bar."""
        colour = {True: "#2a8a4a", False: "#c0392b", None: "#c08a00"}[self.correct]
        return (
            f'<pre style="border-left: 4px solid {colour}; padding-left: 8px">'
            f"{html.escape(str(self))}</pre>"
        )


def _values(tensors: tuple[torch.Tensor, ...]) -> list[Any]:
    return [t.tolist() if t.numel() <= 64 else {"shape": list(t.shape)} for t in tensors]
