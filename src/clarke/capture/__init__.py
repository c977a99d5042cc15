"""What ran: a dispatch mode writes an immutable Trace. Records, judges nothing."""

from clarke.capture.again import dtypes_of, refilled, values_again, without_values
from clarke.capture.applied import Applied
from clarke.capture.aside import without
from clarke.capture.book import memory_of
from clarke.capture.collect import COMPILED, collect_opened, collect_trace, is_behind
from clarke.capture.digest import digest
from clarke.capture.finite import all_finite
from clarke.capture.functions import DeclaredFunction, Drawn, FunctionSchema
from clarke.capture.home import any_away, brought, brought_home
from clarke.capture.live import Node, Unrecorded
from clarke.capture.made import Made
from clarke.capture.memory import is_there, refuse_missing
from clarke.capture.operators import Operators
from clarke.capture.places import Places
from clarke.capture.reached import Reached, reach
from clarke.capture.reads import PythonReads
from clarke.capture.recorder import Recorder
from clarke.capture.refusing import RefusingRecorder
from clarke.capture.releasing import release_nodes
from clarke.capture.retraced import Retraced, bare_op, tensor_at
from clarke.capture.saving import saved_memory, saving_plainly
from clarke.capture.shadow import Shadow, Shadows
from clarke.capture.signs import Signs, ZeroFinder
from clarke.capture.structure import Structure, structure_of
from clarke.capture.trace import (
    External,
    Keep,
    Location,
    OpRecord,
    Origin,
    Ref,
    ScalarRead,
    Trace,
    filled,
    input_slots,
    overload_of,
)
from clarke.capture.weak import TensorTable

__all__ = [
    "COMPILED",
    "Applied",
    "DeclaredFunction",
    "Drawn",
    "External",
    "FunctionSchema",
    "Keep",
    "Location",
    "Made",
    "Node",
    "OpRecord",
    "Operators",
    "Origin",
    "Places",
    "PythonReads",
    "Reached",
    "Recorder",
    "Ref",
    "RefusingRecorder",
    "Retraced",
    "ScalarRead",
    "Shadow",
    "Shadows",
    "Signs",
    "Structure",
    "TensorTable",
    "Trace",
    "Unrecorded",
    "ZeroFinder",
    "all_finite",
    "any_away",
    "bare_op",
    "brought",
    "brought_home",
    "collect_opened",
    "collect_trace",
    "digest",
    "dtypes_of",
    "filled",
    "input_slots",
    "is_behind",
    "is_there",
    "memory_of",
    "overload_of",
    "reach",
    "refilled",
    "refuse_missing",
    "release_nodes",
    "saved_memory",
    "saving_plainly",
    "structure_of",
    "tensor_at",
    "values_again",
    "without",
    "without_values",
]
