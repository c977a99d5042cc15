"""Rules per operator overload: pieces, switching functions, AD's weights. Fails closed."""

from clarke.kinks.functions import register_function
from clarke.kinks.model import Call, Hazard, KinkRule, Touch
from clarke.kinks.registry import (
    Known,
    OpKind,
    Registry,
    default_registry,
    register_kink,
)
from clarke.kinks.spoken import choice_text, slopes_taken

__all__ = [
    "Call",
    "Hazard",
    "KinkRule",
    "Known",
    "OpKind",
    "Registry",
    "Touch",
    "choice_text",
    "default_registry",
    "register_function",
    "register_kink",
    "slopes_taken",
]
