"""The common cases at training speed: a verdict from the record alone, without any replay."""

from clarke.fast.early import EarlyTies
from clarke.fast.judge import Declined, Pending, QuickJudge, let_go
from clarke.fast.layered import Layered
from clarke.fast.repertoire import Familiar

__all__ = [
    "Declined",
    "EarlyTies",
    "Familiar",
    "Layered",
    "Pending",
    "QuickJudge",
    "let_go",
]
