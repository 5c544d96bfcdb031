"""The folder of a sweep: which sweep it is, who may work there, what its jobs are called and what is kept of them."""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits.errors import ConfigError, DigitsError
from digits.files import locked, write_atomically
from digits.settings.compare import RECORD
from digits.settings.grid import Job as PlannedJob
from digits.sweep.jobs import COMPLETED, ENDED, PRUNED, RUNNING, Job, read_jobs
from digits.sweep.ranking import ranks, settings_of, short_names, text_of
from digits.sweep.status import is_alive

FILE = "sweep.json"
LONGEST_NAME = 80
LARGE = ("checkpoints", "plots", "model")  # of a job; 91 MB together, 60 of them checkpoints


@dataclass
class Record:
    """What `sweep.json` says: how the sweep was called, how many jobs it has, their settings, and whose it is."""

    program: str
    arguments: list[str]
    jobs: int  # of a search those that this folder has, and what is left for it to do
    values: dict[str, list[Any]]  # of each setting all that the jobs have
    process: dict[str, Any]  # that works on it now, or worked last
    trials: int = 0  # of a search: how many are asked for, of all folders together

    @property
    def called(self) -> str:
        """What is typed to call the program."""
        return f"python {self.program}" if self.program.endswith(".py") else self.program

    @classmethod
    def of(cls, folder: Path) -> "Record | None":
        """That of the sweep in ``folder``; None if there is none.

        Raises:
            DigitsError: it is damaged.
        """
        path = folder / FILE
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise DigitsError(f"{path}: damaged: {error}; remove it, and the same command goes on") from error

    def write(self, folder: Path) -> None:
        """Write it into ``folder``."""
        write_atomically(folder / FILE, json.dumps(vars(self), indent=1, ensure_ascii=False).encode() + b"\n")


@contextlib.contextmanager
def owned(folder: Path, record: Record, exclusive: bool = True) -> Iterator[None]:
    """While it is entered, this process is the one that adds jobs to ``folder`` and removes files there.

    Args:
        folder: made if it is not there.
        record: of the sweep that is to be run there; it replaces that of one with fewer values.
        exclusive: False for a search, of which several processes may work in one folder.

    Raises:
        ConfigError: the folder holds another sweep.
        DigitsError: another process works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if exclusive:
            stack.enter_context(locked(folder, "hydra.sweep.dir"))
        before = Record.of(folder)
        if before is not None:
            refuse_another(f"hydra.sweep.dir={folder}", before.values, record.values)
            touched = (folder / FILE).stat().st_mtime
            if exclusive and before.process and is_alive(before.process, touched):
                raise _at_work(folder, before.process)
        elif jobs := read_jobs([folder]):
            _refuse_strangers(folder, jobs, record)
        running = [job for job in read_jobs([folder]) if job.state == RUNNING] if exclusive else []
        if running:
            raise DigitsError(f"{running[0].folder}: this job of the sweep is still running; wait for it, or end it")
        record.write(folder)
        try:
            yield
        finally:
            record.process = {}
            with contextlib.suppress(OSError):  # the folder may have vanished
                record.write(folder)


def values_of(planned: Sequence[PlannedJob]) -> dict[str, list[Any]]:
    """Of each setting all values that the jobs have."""
    values: dict[str, list[Any]] = {}
    for job in planned:
        for key, value in job.settings.items():
            known = values.setdefault(key, [])
            if value not in known:
                known.append(value)
    return values


def folders_for(folder: Path, planned: Sequence[PlannedJob]) -> list[Path]:
    """The folder of each job: that of a job with equal settings, or one that is called by what differs."""
    existing = {key_of(job.settings): job.folder for job in read_jobs([folder]) if (job.folder / RECORD).is_file()}
    names = names_of([job.settings for job in planned])
    taken = {path.name for path in existing.values()}
    found = []
    for job, name in zip(planned, names, strict=True):
        path = existing.get(key_of(job.settings))
        if path is None:
            path = folder / (_cut(name, force=True) if name in taken else name)
        found.append(path)
    return found


def key_of(settings: dict[str, Any]) -> str:
    """What equal settings have in common, whatever their order."""
    return json.dumps(settings, sort_keys=True, default=str)


def names_of(settings: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each job, of the settings by which they differ, as `dense_dropout-0.3_l2-0.001`.

    Of letters, digits and `._-` alone, as Hydra's command line splits at `=` and `,`; at most 80 characters, where it
    is cut with a hash of the whole.
    """
    seen = {key: {repr(each.get(key)) for each in settings} for each in settings for key in each}
    varied = [key for key, values in seen.items() if len(values) > 1]
    varied.sort(key=lambda key: key == "seed")  # last, so that the seeds of a setting stand together
    short = short_names(varied)
    names = ["_".join(f"{short[key]}-{text_of(each[key], 12)}" for key in varied if key in each) for each in settings]
    names = [name.replace("e+", "e") for name in names]  # of 1e+12
    cleaned = [re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "job" for name in names]
    unclear = {name for name in cleaned if cleaned.count(name) > 1} if len({*cleaned}) < len(cleaned) else set()
    return [_cut(clean, name, clean in unclear) for clean, name in zip(cleaned, names, strict=True)]


def _cut(name: str, whole: str | None = None, force: bool = False) -> str:
    if len(name) <= LONGEST_NAME and not force:
        return name
    mark = hashlib.sha256((whole or name).encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}_{mark}"


def remove_large(folder: Path, keep: str) -> None:
    """Remove what ``keep`` does not keep of the jobs in ``folder``; only the process that owns the sweep does this.

    With "auto" the best setting so far keeps all, the others their figures and logs, once all their seeds have ended;
    with "none" only the checkpoints are left to remove. Where nothing is held out nothing is the best, and all is kept.
    """
    jobs = read_jobs([folder])
    if keep == "all" or (keep == "auto" and not ranks(jobs)):
        return
    record = Record.of(folder)
    seeds = len(record.values.get("seed", [0])) if record else 1
    for place, setting in enumerate(settings_of(jobs)):
        ended = all(job.state in ENDED for job in setting.jobs) and len(setting.jobs) >= seeds
        if keep == "auto" and (place == 0 or not ended):
            continue
        for job in setting.jobs:
            if job.state in (COMPLETED, PRUNED):  # a failed one may have what says why
                for name in LARGE:
                    shutil.rmtree(job.folder / name, ignore_errors=True)


def is_best_so_far(folder: Path, run_dir: Path, summary: dict[str, Any]) -> bool:
    """Whether the setting of the job in ``run_dir`` leads the sweep in ``folder``, ``summary`` being its result."""
    jobs = read_jobs([folder])
    own = [job for job in jobs if job.name == run_dir.name]
    for job in own:
        job.state, job.summary = COMPLETED, summary
    return any(job in own for job in settings_of(jobs)[0].jobs)


def refuse_another(where: str, before: dict[str, list[Any]], now: dict[str, list[Any]]) -> None:
    """Raise ConfigError if the values of the sweep ``before`` are not all among those of the one ``now``.

    ``where`` is the setting that names what both are in.
    """
    for key, old in before.items():
        new = now.get(key, ["not a setting"])
        if any(value not in new for value in old):
            had, has = (",".join(map(text_of, values)) for values in (old, new))
            raise ConfigError(
                f"{where}: the sweep there has {key}={had}, this one {has}; values may be added, not taken away: name "
                "another one"
            )


def _refuse_strangers(folder: Path, jobs: Sequence[Job], record: Record) -> None:
    """Raise ConfigError if there is a job that is none of this sweep, as of one that did not write `sweep.json`."""
    for job in jobs:
        for key, value in job.settings.items():
            if (job.folder / RECORD).is_file() and value not in record.values.get(key, [value]):
                raise ConfigError(
                    f"hydra.sweep.dir={folder}: {job.name} there has {key}={text_of(value)}, which no job of this "
                    "sweep has; name another folder"
                )


def _at_work(folder: Path, process: dict[str, Any]) -> DigitsError:
    return DigitsError(
        f"hydra.sweep.dir={folder}: process {process.get('pid')} on {process.get('host')} is at work on this sweep; "
        "wait for its end, or name another folder"
    )
