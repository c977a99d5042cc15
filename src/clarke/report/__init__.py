"""Reports: data, text, JSON. Pure functions of what was decided."""

from clarke.report.build import build_report, summarise_kinks
from clarke.report.model import KinkSummary, Report

__all__ = ["KinkSummary", "Report", "build_report", "summarise_kinks"]
