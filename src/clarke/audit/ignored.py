"""``# clarke: ignore`` at the end of a line of code: a finding there is known, for a reason."""

from __future__ import annotations

import linecache
import re
import warnings
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from clarke.audit.engine import levels_up_to
from clarke.errors import AuditWarning
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from clarke.capture import Location
    from clarke.decide import Decision

_COMMENT: Final = re.compile(r"#\s*clarke:\s*ignore\b[\s:,-]*(.*)$")
_WITHOUT: Final = "`# clarke: ignore` gives no reason, and does not hold without. Write it behind."
_FINDINGS: Final = (
    Verdict.NOT_CLARKE,
    Verdict.NONFINITE,
    Verdict.NOT_LIPSCHITZ,
    Verdict.UNDECIDED,
)


class Ignored:
    """Finds the comments; warns once of each that gives no reason, and does not hold."""

    def __init__(self) -> None:
        self._warned_of: set[Location] = set()

    def because(self, decision: Decision, called: Location) -> str:
        """Why a finding does not count, with the line that says so; "" where it does.

        The comment stands on a line that the verdict names, or on the one that calls backward.
        """
        if decision.verdict not in _FINDINGS:
            return ""
        for place in dict.fromkeys((*(c.location for c in decision.culprits), called)):
            found = _COMMENT.search(linecache.getline(place.file, place.line))
            if found is None:
                continue
            if found[1].strip():
                return f"{found[1].strip()} ({PurePath(place.file).name}:{place.line})"
            if place not in self._warned_of:
                self._warned_of.add(place)
                level = levels_up_to(called.file, called.line)
                warnings.warn(f"{place}: {_WITHOUT}", AuditWarning, stacklevel=level)
        return ""
