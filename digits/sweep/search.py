"""Hydra's sweeper for a search: Optuna proposes trials, the launcher runs them, and the study survives any process."""

import contextlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep

from digits.errors import ConfigError, DigitsError
from digits.settings.grid import Axis
from digits.sweep.folder import Record, refuse_another
from digits.sweep.job import OBJECTIVE
from digits.sweep.jobs import COMPLETED, PRUNED, read_job, read_jobs
from digits.sweep.status import SIGN_OF_LIFE, is_alive, this_process
from digits.sweep.sweeper import ResumingSweeper
from digits.sweep.trial import PRUNERS, SAMPLERS, Trial, check_storage, open_study

if TYPE_CHECKING:
    import optuna

FAILURES = 3  # in a row, after which a search ends


class SearchSweeper(ResumingSweeper):
    """Minimises the cross-entropy of the validation images, without the L2 term, of a trial's best epoch.

    Args:
        n_trials: completed or pruned ones, of all processes together that work on the study.
        n_jobs: trials that are launched together; 1 by a launcher that runs one after the other.
        study: its name.
        storage: an address as SQLAlchemy has them; null: SQLite, `study.db` in the sweep's folder.
        sampler: "tpe" or "random".
        pruner: "median", which ends trials that are worse than half of the others at the same epoch, or "none".
        seed: of the sampler; each trial has its own, the seed and its number.
        params: what is searched, in place of the command line.
    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        study: str,
        storage: str | None,
        sampler: str,
        pruner: str,
        seed: int,
        params: Mapping[str, str] | None = None,
    ) -> None:
        self.n_trials, self.n_jobs, self.name, self.storage = n_trials, n_jobs, study, storage
        self.sampler, self.pruner, self.seed = sampler, pruner, seed
        self._own: list[optuna.Trial] = []  # those that run
        for key, value, allowed in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
            if value not in allowed:
                raise ConfigError(f"hydra.sweeper.{key}={value}: allowed is {' or '.join(allowed)}")
        for key, number in (("n_trials", n_trials), ("n_jobs", n_jobs)):
            if not isinstance(number, int) or number < 1:
                raise ConfigError(f"hydra.sweeper.{key}={number}: a number from 1")

    def sweep(self, arguments: list[str]) -> None:
        """Ask for trials and run them until there are enough; those of processes that are gone are taken up again."""
        grid = self.planned(arguments)
        space = {axis.key: axis for axis in grid.axes if len(axis.texts) > 1}
        if not space:
            raise ConfigError("hydra/sweeper=search: nothing to search; give model.dense_dropout='interval(0.2,0.6)'")
        values = {key: [value] for key, value in next(iter(grid.bases.values())).items()}
        values |= {key: [str(axis.override.input_line).partition("=")[2]] for key, axis in space.items()}
        if values["data.val_size"] == [0]:
            raise ConfigError("data.val_size=0: a search needs images that are held out; it never takes the test split")
        self.total = self.n_trials
        record = Record(sys.argv[0], sys.argv[1:], self.n_trials, values, this_process(), self.n_trials)
        storage = self.storage or f"sqlite:///{self.folder.resolve()}/study.db"
        check_storage(storage)  # first: what is written next has the command line in it
        with self.reporting(record, exclusive=False):
            self.study = open_study(self.name, storage, self.pruner)
            refuse_another(f"hydra.sweeper.study={self.name}", self.study.user_attrs.get("values", {}), values)
            self.study.set_user_attr("values", values)
            print(f"{self.n_trials} trials in {self.folder}, study {self.name}", flush=True)
            fixed = [axis.word(0) for axis in grid.axes if axis.key not in space and not axis.is_hydras]
            threading.Thread(target=self._beat, daemon=True).start()
            try:
                self._search(space, fixed, storage)
            finally:
                done = [job for job in read_jobs([self.folder]) if job.state in (COMPLETED, PRUNED)]
                record.jobs = len(done) + max(self.n_trials - len(self._counted()), 0)

    def _counted(self) -> "list[optuna.trial.FrozenTrial]":
        """The trials that need no other in their place, of all processes together; our own that was stopped does."""
        from optuna.trial import TrialState

        own = {trial.number for trial in self._own}
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        return [trial for trial in self.study.get_trials(False, states) if trial.number not in own]

    def _search(self, space: Mapping[str, Axis], fixed: Sequence[str], storage: str) -> None:
        failures = 0
        while True:
            self._take_up()
            trials: list[optuna.Trial] = []
            while len(trials) < self.n_jobs and (trial := self._ask()) is not None:
                trials.append(trial)
            if not trials:
                return
            jobs = []
            for trial in trials:
                folder = self.folder / str(trial.user_attrs.get("subdir", trial.number))
                trial.set_user_attr("subdir", folder.name)
                Trial(trial.number, self.name, storage, self.pruner).write(folder)
                jobs.append((int(folder.name), folder, [*fixed, *self._suggest(trial, space)]))
            self.launch(jobs)
            for trial, (_, folder, _) in zip(trials, jobs, strict=True):
                failures = 0 if self._tell(trial, folder) else failures + 1
                self._own.remove(trial)
            if failures >= FAILURES:
                raise DigitsError(f"the last {failures} trials have failed: {read_job(folder).reason}")

    def _ask(self) -> "optuna.Trial | None":
        """A new trial, or one that waits to be taken up; None if there are enough, of all processes together."""
        from optuna.trial import TrialState

        if len(self._counted()) + len(self._own) >= self.n_trials:
            return None
        trial = self.study.ask()
        trial.set_user_attr("process", this_process())
        before = [each for each in self._counted() if each.number < trial.number]
        if len(before) + len(self._own) >= self.n_trials:  # another process has asked at the same moment
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        self._own.append(trial)
        return trial

    def _suggest(self, trial: "optuna.Trial", space: Mapping[str, Axis]) -> list[str]:
        """The overrides of ``trial``.

        Each has a seed of its own: with one for all a search that is gone on with would propose the same again, and so
        would each of several that work side by side.
        """
        import optuna

        seed = (self.seed + trial.number) % 2**32
        self.study.sampler = (
            optuna.samplers.RandomSampler(seed=seed)
            if self.sampler == "random"
            else optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        )
        words = []
        for key, axis in space.items():
            value = trial._suggest(key, _distribution(axis))
            text = f"{value:.4g}" if isinstance(value, float) else str(value)  # as one would type it
            words.append(f"{axis.override.get_key_element()}={text}")
        return words

    def _tell(self, trial: "optuna.Trial", folder: Path) -> bool:
        """Tell the study how the job in ``folder`` ended; whether it has a result."""
        from optuna.trial import TrialState

        job = read_job(folder)
        value = job.figure(OBJECTIVE) if job.state == COMPLETED else None
        if job.state == PRUNED:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif value is not None:
            self.study.tell(trial, value)
        else:
            self.study.tell(trial, state=TrialState.FAIL)
        return job.state == PRUNED or value is not None

    def _take_up(self) -> None:
        """Let trials wait to be run again whose processes are gone; a job goes on in the folder that it had."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(False, [TrialState.RUNNING]):
            begun = trial.datetime_start.timestamp() if trial.datetime_start else 0
            process = trial.user_attrs.get("process", {"host": None})  # None: it was killed before it could say so
            if is_alive(process, trial.user_attrs.get("seen", begun)):
                continue
            with contextlib.suppress(ValueError, RuntimeError):  # another process has just done it
                self.study.tell(trial.number, state=TrialState.FAIL)
                # of one that was itself taken up, and killed before its parameters were asked for, those that wait
                params = trial.params or trial.system_attrs.get("fixed_params")
                if params:
                    kept = {"subdir": trial.user_attrs.get("subdir", str(trial.number))}
                    self.study.enqueue_trial(params, kept)

    def _beat(self) -> None:
        """Say once a minute that this process is still there, for those of other machines."""
        while True:
            time.sleep(SIGN_OF_LIFE)
            for trial in [*self._own]:
                with contextlib.suppress(Exception):  # the server may be away for a while
                    trial.set_user_attr("seen", time.time())


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    interval = axis.override.value()
    if not isinstance(interval, IntervalSweep):
        return CategoricalDistribution(axis.texts)
    start, end = axis.values
    if isinstance(start, int) and isinstance(end, int):
        return IntDistribution(start, end, log="log" in interval.tags)
    return FloatDistribution(float(start), float(end), log="log" in interval.tags)
