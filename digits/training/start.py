"""What is checked of a run's folder before Hydra writes there, and what a start that fails takes back."""

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from digits.errors import DigitsError
from digits.files import locked
from digits.report.next_steps import print_next_steps
from digits.report.tables import print_run, read_summary
from digits.settings.command_line import check_settings
from digits.settings.compare import RECORD
from digits.settings.refusals import refusing
from digits.training.run_folder import checkpoints_to_resume, is_complete


class Start:
    """The start of a single run in ``run_dir``, of which no other process may begin one meanwhile.

    Hydra writes `.hydra/` and `train.log` there before the run is called; :meth:`close` takes them back if it has not
    begun, which its record shows.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._missing = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]  # innermost first
        self._files = {path: path.read_bytes() for path in self._hydras() if path.is_file()}
        self._record = self._stamp()
        self._lock = contextlib.ExitStack()

    def lock(self) -> None:
        """Make the folder, and keep other processes out; raises DigitsError if one is in."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(locked(self.run_dir))

    def concerns(self, error: OSError) -> bool:
        """Whether the run's folder, or one that it is to lie in, is what ``error`` names."""
        path = Path(str(error.filename or "")).absolute()
        return error.filename is not None and (path.is_relative_to(self.run_dir) or self.run_dir.is_relative_to(path))

    def close(self) -> None:
        """Take back what was written if the run has not begun, and let others in."""
        self._lock.close()
        if self._stamp() != self._record or not self.run_dir.is_dir():
            return
        for handler in logging.getLogger().handlers:
            handler.close()  # Windows removes no open file
        for path in self._hydras():
            if path not in self._files:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != self._files[path]:
                path.write_bytes(self._files[path])
        for folder in [self.run_dir / ".hydra", *self._missing]:
            with contextlib.suppress(OSError):  # there is something in it that no start has written
                folder.rmdir()

    def _hydras(self) -> list[Path]:
        return [*(self.run_dir / ".hydra").glob("*"), *self.run_dir.glob("*.log")]

    def _stamp(self) -> tuple[int, int] | None:
        try:
            record = (self.run_dir / RECORD).stat()
        except OSError:
            return None
        return record.st_ino, record.st_mtime_ns


class StartCheck(Callback):
    """Hydra's callback, in `conf/train.yaml`; it sees the folder of a single run before anything is written."""

    current: ClassVar[Start | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a folder where another run was started or is still going on, and leave one that is complete alone.

        Raises:
            SystemExit: in these cases, as of an Exception Hydra would only warn.
        """
        settings = config.copy()
        with open_dict(settings):
            del settings["hydra"]
        try:
            with refusing(["hydra.run.dir"]):
                run_dir = Path(config.hydra.run.dir).absolute()
            start = Start(run_dir)
            start.lock()
            StartCheck.current = start
            checked = check_settings(settings)
            checkpoints_to_resume(checked, run_dir)
            complete = is_complete(checked, run_dir)
        except DigitsError as error:
            print(f"{sys.argv[0]}: {error}", file=sys.stderr)
            sys.exit(error.exit_status)
        except OSError as error:
            text = f"the run folder cannot be made or written: {error}; name another with hydra.run.dir=..."
            print(f"{sys.argv[0]}: {text}", file=sys.stderr)
            sys.exit(1)
        if complete:
            summary = read_summary(run_dir) or {}
            print_run(summary)
            print_next_steps(summary)
            print("This run is complete: nothing is left to do. resume=false starts it afresh.")
            sys.exit(0)
