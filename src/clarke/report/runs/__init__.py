"""Runs on disk and what is shown of them: the run folder, the page of HTML, the comparison."""

from clarke.report.runs.folder import RunWriter, read_run
from clarke.report.runs.model import CulpritRecord, Picture, Run, StepRecord

__all__ = ["CulpritRecord", "Picture", "Run", "RunWriter", "StepRecord", "read_run"]
