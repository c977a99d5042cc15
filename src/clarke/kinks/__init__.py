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

__all__ = [
    "Call",
    "Hazard",
    "KinkRule",
    "Known",
    "OpKind",
    "Registry",
    "Touch",
    "default_registry",
    "register_function",
    "register_kink",
]
