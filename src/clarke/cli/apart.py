"""Work on a stranger's file in a process of its own, which may die of it.

Not every operator of torch survives all arguments that a file can name: some read beyond their
tensors, or divide by a size of zero. What ends a process must not end the one that asked.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import torch

from clarke.errors import OutOfTimeError, ProofError

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 2  # times the limit, for a single operator that does not look at the clock


def apart(work: Callable[[], Any], seconds: float | None) -> Any:
    """What some work returns, which has to be plain data; where there is no fork, done here.

    Args:
        work: What to do. It keeps the limit, unless an operator hangs.
        seconds: The limit.

    Raises:
        ProofError: The process died.
        OutOfTimeError: It was ended.
    """
    if not hasattr(os, "fork"):
        return work()
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, of which the child uses none
        child = os.fork()
    if child == 0:
        _answer(work, writing)
    os.close(writing)
    answer = None
    try:
        answer = _read(reading, None if seconds is None else _PATIENCE * seconds)
    finally:
        os.close(reading)
        if answer is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if answer is None:
        raise OutOfTimeError(f"An operator of the program took more than {seconds:g} s.")
    if answer:
        return json.loads(answer)
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an error"
    raise ProofError(
        f"Not a proof of clarke: running its program ended the process ({how}). Use the file as it "
        "was saved."
    )


def _answer(work: Callable[[], Any], writing: int) -> None:
    """Do the work and end this process, whatever happens."""
    status = 1
    try:
        faulthandler.disable()  # how it ends is told by the parent, in a line
        torch.set_num_threads(1)  # those of the parent are not here
        with os.fdopen(writing, "w") as stream:
            json.dump(work(), stream)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _read(reading: int, seconds: float | None) -> bytes | None:
    """All that comes, until the other end is closed; None if nothing does for so long."""
    found = b""
    while select.select([reading], [], [], seconds)[0]:
        part = os.read(reading, 1 << 16)
        if not part:
            return found
        found += part
    return None
