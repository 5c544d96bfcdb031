"""The jobs of a sweep, read from the files that they leave: how each stands, its settings and its figures."""

import contextlib
import functools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from digits.errors import one_line
from digits.settings.compare import RECORD, deciding
from digits.sweep.status import FILE, Status

COMPLETED, RUNNING, INTERRUPTED, KILLED, PRUNED, FAILED = STATES = (
    "completed",
    "running",
    "interrupted",  # by Ctrl-C or a signal, with a checkpoint
    "killed",  # its process is no more and could not say so
    "pruned",  # by a search, as it was hopeless
    "failed",
)
ENDED = (COMPLETED, PRUNED, FAILED)  # none of which is gone on with from where it is, a failed one is begun anew
VAL_ACCURACY, CROSS_ENTROPY, TEST_ACCURACY = "val/sparse_accuracy", "val/cross_entropy", "test/sparse_accuracy"
KEPT = {"status", "signal", "error", "dataset", "overrides", "seconds", "test/errors", "val/best_cross_entropy"}
KEPT |= {VAL_ACCURACY, CROSS_ENTROPY, TEST_ACCURACY}  # of a summary, which has each mistake too
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's reads 200 jobs in the time of Python's ten


@dataclass
class Job:
    """One job: its ``folder``, a state of :data:`STATES` and why, its settings by their names, :data:`KEPT` figures."""

    folder: Path
    state: str
    reason: str
    settings: dict[str, Any]
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        """That of its folder."""
        return self.folder.name

    def figure(self, key: str) -> float | None:
        """A number of the summary; None if it is not there or not finite."""
        value = self.summary.get(key)
        return value if isinstance(value, int | float) and math.isfinite(value) else None


def read_jobs(folders: Sequence[Path]) -> list[Job]:
    """The jobs in ``folders``, of each sweep in the order of their names, 2 before 10."""
    found = []
    for sweep in folders:
        jobs = {path.parent for name in (".hydra", RECORD, FILE) for path in sweep.glob(f"*/{name}")}
        jobs |= {path.parent.parent for path in sweep.glob(f"*/*/{RECORD}")} if not jobs else set()
        found += [read_job(folder) for folder in sorted(jobs, key=lambda folder: _natural_key(folder.name))]
    return found


def read_job(folder: Path) -> Job:
    """The job in ``folder``."""
    status, reason = Status(folder), ""
    try:
        stamp = (folder / "summary.json").stat()
        summary, written = dict(_summary(folder / "summary.json", stamp.st_mtime_ns)), stamp.st_mtime
        state = str(summary.get("status", FAILED))
    except FileNotFoundError:
        summary, state, written = {}, FAILED, 0.0
        reason = "no summary.json: the job ended before it could write one"
    except (ValueError, AttributeError, OSError, RecursionError) as error:
        summary, state, written = {}, FAILED, math.inf
        reason = f"summary.json is damaged: {error}"
    if status.works:
        state, reason = RUNNING, ""
    elif status.broke_off and written < status.begun:
        state, reason = KILLED, _death(status)
    elif state == INTERRUPTED:
        reason = f"by {summary.get('signal', 'a signal')}"
    elif state == FAILED:
        reason = one_line(summary.get("error") or reason)
    return Job(folder, state if state in STATES else FAILED, reason, _settings(folder), summary)


def _death(status: Status) -> str:
    host, pid = status.process.get("host"), status.process.get("pid")
    return f"its process {pid} on {host} ended without a word: killed, or out of memory"


def _settings(folder: Path) -> dict[str, Any]:
    """Those that decide the result; of a job that was not begun what it was to be called with."""
    with contextlib.suppress(OSError, yaml.YAMLError, AttributeError):
        return _recorded(folder / RECORD, (folder / RECORD).stat().st_mtime_ns)
    try:
        overrides = yaml.load((folder / ".hydra" / "overrides.yaml").read_text("utf-8"), _Loader)
        pairs = [str(override).partition("=") for override in overrides or ()]
        return {key.lstrip("+"): _number(value) for key, _, value in pairs}
    except (OSError, yaml.YAMLError):
        return {}


@functools.lru_cache(maxsize=10_000)  # a sweep reads those of its earlier jobs again after each one
def _summary(path: Path, changed: int) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    return {key: value for key, value in content.items() if key in KEPT}


@functools.lru_cache(maxsize=10_000)  # as above
def _recorded(path: Path, changed: int) -> dict[str, Any]:
    return deciding(yaml.load(path.read_text("utf-8"), _Loader))


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _natural_key(name: str) -> list[tuple[float, str]]:
    """Numbers in ``name`` by their size, `0.1` among them."""
    return [(float(part), "") if part[:1].isdigit() else (-1.0, part) for part in re.split(r"(\d+(?:\.\d+)?)", name)]
