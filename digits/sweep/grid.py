"""Hydra's sweeper for all combinations of several values."""

import logging
import sys

from digits.sweep.folder import Record, folders_for, values_of
from digits.sweep.jobs import COMPLETED, INTERRUPTED, PRUNED, read_jobs
from digits.sweep.status import this_process
from digits.sweep.sweeper import ResumingSweeper

log = logging.getLogger("digits")


class GridSweeper(ResumingSweeper):
    """All combinations; Hydra's own, but jobs are skipped, gone on with and reported on.

    Args:
        params: values of keys, in place of the command line.
    """

    def sweep(self, arguments: list[str]) -> None:
        """See above; jobs that are completed are skipped."""
        jobs = self.planned(arguments).jobs()
        self.total = len(jobs)
        record = Record(sys.argv[0], sys.argv[1:], len(jobs), values_of(jobs), this_process())
        with self.reporting(record):
            folders = folders_for(self.folder, jobs)
            pairs = [(n, folder, job.overrides) for n, (folder, job) in enumerate(zip(folders, jobs, strict=True))]
            states = {job.name: job.state for job in read_jobs([self.folder])}
            todo = [pair for pair in pairs if states.get(pair[1].name) not in (COMPLETED, PRUNED)]
            done = len(pairs) - len(todo)
            skipped = f", of which {done} are completed" if done else ""
            print(f"{len(jobs)} job{'s' * (len(jobs) != 1)} in {self.folder}{skipped}", flush=True)
            while todo:
                try:
                    self.launch(todo)
                except Exception as error:  # of a launcher; what our jobs raise is in their files
                    log.error("%s: %s", type(self.engine).__name__, " ".join(str(error).split()))
                states = {job.name: job.state for job in read_jobs([self.folder])}
                left = [pair for pair in todo if states.get(pair[1].name) in (None, INTERRUPTED)]
                if len(left) == len(todo):
                    break
                todo = left
