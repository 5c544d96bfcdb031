"""What every reader owes to any input, how many inputs it is tried with, and how real inputs are damaged."""

import contextlib
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, settings

from digits.errors import DigitsError

MAX_BYTES = 500_000_000  # by which the memory of this process may grow while an input is read
THOROUGH = os.environ.get("DIGITS_FUZZ") == "thorough"  # `make fuzz`; else `make test`
MAX_SECONDS = 2.0 if THOROUGH else 20.0  # of the processor; `make test` shares it, and its memory, with other tests


def inputs(quick: int, thorough: int) -> Callable[[Any], Any]:
    """How many inputs a target is tried with, in `make test` always the same ones.

    `make fuzz` takes those of its seed. With DIGITS_FUZZ_INPUTS=N every target has N, to try a change.
    """
    number = int(os.environ.get("DIGITS_FUZZ_INPUTS") or (thorough if THOROUGH else quick))
    return settings(
        max_examples=number,
        derandomize=not THOROUGH,
        database=None,
        deadline=None,  # `contract` measures, in seconds of the processor
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if THOROUGH else [])],  # which may take minutes
        suppress_health_check=[*HealthCheck],  # which judge how a strategy was written
        print_blob=True,
    )


@contextlib.contextmanager
def contract() -> Iterator[None]:
    """Within it an input is read: no exception but a DigitsError of one line, and little time and memory."""
    torch.set_num_threads(1)  # others would wait for their work by spinning, which takes seconds of the processor
    gc.disable()  # it would go through all that Hypothesis keeps of earlier inputs, which takes seconds too
    memory, before = _start_peak(), _processor_seconds()
    begun = time.perf_counter()
    try:
        yield
    except DigitsError as error:
        check_line(str(error))
    finally:
        seconds, grown, passed = _processor_seconds() - before, _peak() - memory, time.perf_counter() - begun
        gc.enable()
    assert seconds < MAX_SECONDS, f"took {seconds:.1f} s of the processor"
    assert passed < 30 * MAX_SECONDS, "waited"
    assert grown < MAX_BYTES, f"took {grown / 1e6:,.0f} MB"


def check_line(line: str) -> None:
    """An error is one line, and nothing in it moves a terminal's cursor."""
    assert line and line.isprintable(), ascii(line)


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _start_peak() -> int:
    """The memory in use; on Linux its peak is measured from now on, elsewhere from the start of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
