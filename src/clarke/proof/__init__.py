"""Proofs and kept steps as files: written, read with bounds, and checked or judged again."""

from clarke.proof.files import Stored, load, load_certificate, save_certificate, save_step
from clarke.proof.steps import judge_stored

__all__ = [
    "Stored",
    "judge_stored",
    "load",
    "load_certificate",
    "save_certificate",
    "save_step",
]
