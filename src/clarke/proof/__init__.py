"""Proofs and kept steps as files: written, read with bounds, and checked or judged again."""

from clarke.proof.container import pack, unpack
from clarke.proof.files import (
    Stored,
    load,
    load_certificate,
    pack_step,
    save_certificate,
    save_step,
    save_theorem,
    unpack_stored,
)
from clarke.proof.joint import mean_of, with_parameters
from clarke.proof.steps import judge_stored, judge_within

__all__ = [
    "Stored",
    "judge_stored",
    "judge_within",
    "load",
    "load_certificate",
    "mean_of",
    "pack",
    "pack_step",
    "save_certificate",
    "save_step",
    "save_theorem",
    "unpack",
    "unpack_stored",
    "with_parameters",
]
