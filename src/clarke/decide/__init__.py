"""The ladder: smooth, witness, mixture; what cannot be judged, and why."""

from clarke.decide.certificate import Certificate
from clarke.decide.ladder import decide
from clarke.decide.model import Confirm, Culprit, Decision, Settings, TouchCount, Witness

__all__ = [
    "Certificate",
    "Confirm",
    "Culprit",
    "Decision",
    "Settings",
    "TouchCount",
    "Witness",
    "decide",
]
