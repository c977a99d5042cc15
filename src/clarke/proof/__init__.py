"""Proofs as files: written, read with bounds and without running code from them, and checked again."""

from clarke.proof.files import Stored, load_certificate, save_certificate

__all__ = ["Stored", "load_certificate", "save_certificate"]
