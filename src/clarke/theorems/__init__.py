"""Conditions on a trace's structure under which AD is correct for all inputs and parameters."""

from clarke.theorems.apply import BiasShift, bias_shift
from clarke.theorems.explanation import Explanation, Hypothesis, LayerFacts
from clarke.theorems.judge import explain_trace
from clarke.theorems.model import Bias, Condition, Strength, Theorem
from clarke.theorems.peel import Group, Peeling, peel
from clarke.theorems.rank import FullRank, full_column_rank
from clarke.theorems.structure import Context, Structure
from clarke.theorems.walk import walk

__all__ = [
    "Bias",
    "BiasShift",
    "Condition",
    "Context",
    "Explanation",
    "FullRank",
    "Group",
    "Hypothesis",
    "LayerFacts",
    "Peeling",
    "Strength",
    "Structure",
    "Theorem",
    "bias_shift",
    "explain_trace",
    "full_column_rank",
    "peel",
    "walk",
]
