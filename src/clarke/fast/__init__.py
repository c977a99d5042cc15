"""The common cases at training speed: a verdict from the record alone, without any replay."""

from clarke.fast.certificate import LayerCertificate
from clarke.fast.judge import Declined, QuickJudge

__all__ = ["Declined", "LayerCertificate", "QuickJudge"]
