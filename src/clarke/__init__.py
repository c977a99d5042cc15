"""clarke: is the gradient that automatic differentiation returned a generalized gradient?"""

from clarke.audit import Audit, OnWrong, Step, Summary, audit
from clarke.check import check
from clarke.decide import Settings
from clarke.decide.limits import Limits
from clarke.errors import (
    AuditWarning,
    BudgetError,
    CaptureError,
    ClarkeError,
    InputError,
    OutOfTimeError,
    ProofError,
    RegistrationError,
    UnsupportedError,
    WrongGradientError,
    WrongGradientWarning,
)
from clarke.explain import explain
from clarke.goldstein import Goldstein, NearStationary, goldstein
from clarke.grad import grad
from clarke.hunt import Find, Hunt, hunt
from clarke.jacobian import Jacobian, JacobianReport, check_jacobian, jacobian, jacobians
from clarke.kinks import register_function, register_kink
from clarke.proof import load_certificate, save_certificate
from clarke.report import Report
from clarke.subdifferential import Subdifferential, subdifferential
from clarke.theorems import Explanation
from clarke.verdict import Verdict

__all__ = [
    "Audit",
    "AuditWarning",
    "BudgetError",
    "CaptureError",
    "ClarkeError",
    "Explanation",
    "Find",
    "Goldstein",
    "Hunt",
    "InputError",
    "Jacobian",
    "JacobianReport",
    "Limits",
    "NearStationary",
    "OnWrong",
    "OutOfTimeError",
    "ProofError",
    "RegistrationError",
    "Report",
    "Settings",
    "Step",
    "Subdifferential",
    "Summary",
    "UnsupportedError",
    "Verdict",
    "WrongGradientError",
    "WrongGradientWarning",
    "audit",
    "check",
    "check_jacobian",
    "explain",
    "goldstein",
    "grad",
    "hunt",
    "jacobian",
    "jacobians",
    "load_certificate",
    "register_function",
    "register_kink",
    "save_certificate",
    "subdifferential",
]


def __dir__() -> list[str]:
    """The public names, without the modules that hold them."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
