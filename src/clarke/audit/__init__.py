"""`clarke.audit`: every backward pass of a training loop judged, with statistics over the run."""

from clarke.audit.policy import OnWrong
from clarke.audit.session import Audit, audit
from clarke.audit.statistics import PlaceStatistics
from clarke.audit.step import Step
from clarke.audit.summary import Summary

__all__ = ["Audit", "OnWrong", "PlaceStatistics", "Step", "Summary", "audit"]
