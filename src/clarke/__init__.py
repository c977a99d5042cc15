"""clarke: is the gradient that automatic differentiation returned a generalized gradient?"""

from clarke.check import check
from clarke.errors import (
    CaptureError,
    ClarkeError,
    InputError,
    RegistrationError,
    WrongGradientError,
)
from clarke.kinks import register_kink
from clarke.report import Report
from clarke.verdict import Verdict

__all__ = [
    "CaptureError",
    "ClarkeError",
    "InputError",
    "RegistrationError",
    "Report",
    "Verdict",
    "WrongGradientError",
    "check",
    "register_kink",
]
