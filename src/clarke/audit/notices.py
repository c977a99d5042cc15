"""What an audit tells of once, beside its verdicts."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from clarke.audit.engine import levels_up_to
from clarke.errors import AuditWarning, ClarkeError, in_a_line

if TYPE_CHECKING:
    from clarke.capture import Location


class Notices:
    """Warns of each kind of thing once."""

    def __init__(self) -> None:
        self._warned = self._told = False

    def of_kernels(self, differs: str, location: Location) -> None:
        """What is wrong with a compiled kernel is told once, whatever it does to a gradient."""
        if not differs or self._told:
            return
        self._told = True
        warnings.warn(
            f"What torch.compile has made of a program differentiated at {location} computes "
            f"something else than the program as it was written, by more than rounding: {differs}. "
            "The function may be run uncompiled to compare "
            "(torch.compiler.set_stance('force_eager')). Shown once.",
            AuditWarning,
            stacklevel=levels_up_to(location.file, location.line),
        )

    def of_failure(self, error: Exception | None, location: Location) -> None:
        """Warn of an error of clarke's own, which is no refusal."""
        if error is None or isinstance(error, ClarkeError) or self._warned:
            return
        self._warned = True
        warnings.warn(
            f"clarke failed while judging the gradient computed at {location} "
            f"({in_a_line(error)}); such steps are UNDECIDED. Shown once.",
            AuditWarning,
            stacklevel=levels_up_to(location.file, location.line),
        )
