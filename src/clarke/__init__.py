"""clarke: is the gradient that automatic differentiation returned a generalized gradient?"""

from clarke.audit import Audit, OnWrong, Step, Summary, audit
from clarke.check import check
from clarke.errors import (
    AuditWarning,
    CaptureError,
    ClarkeError,
    InputError,
    RegistrationError,
    WrongGradientError,
    WrongGradientWarning,
)
from clarke.kinks import register_kink
from clarke.report import Report
from clarke.verdict import Verdict

__all__ = [
    "Audit",
    "AuditWarning",
    "CaptureError",
    "ClarkeError",
    "InputError",
    "OnWrong",
    "RegistrationError",
    "Report",
    "Step",
    "Summary",
    "Verdict",
    "WrongGradientError",
    "WrongGradientWarning",
    "audit",
    "check",
    "register_kink",
]
