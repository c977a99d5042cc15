"""What ran: a dispatch mode writes an immutable Trace. Records, judges nothing."""

from clarke.capture.collect import collect_trace, release_nodes
from clarke.capture.functions import DeclaredFunction, FunctionSchema
from clarke.capture.recorder import Recorder
from clarke.capture.trace import (
    External,
    Location,
    OpRecord,
    Origin,
    Ref,
    ScalarRead,
    Trace,
    input_slots,
    overload_of,
)

__all__ = [
    "DeclaredFunction",
    "External",
    "FunctionSchema",
    "Location",
    "OpRecord",
    "Origin",
    "Recorder",
    "Ref",
    "ScalarRead",
    "Trace",
    "collect_trace",
    "input_slots",
    "overload_of",
    "release_nodes",
]
