"""A trial of a search: the file by which a job knows of it, and the study in which it reports its epochs."""

import json
import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits.errors import ConfigError, DigitsError
from digits.files import write_atomically

if TYPE_CHECKING:
    from optuna import Study

FILE = "trial.json"
PASSWORD = "DIGITS_STORAGE_PASSWORD"  # the name of the variable
PRUNERS, SAMPLERS = ("median", "none"), ("tpe", "random")


@dataclass
class Trial:
    """Trial ``number`` of the ``study`` in ``storage``; ``pruner`` says which are hopeless."""

    number: int
    study: str
    storage: str  # an address without its password
    pruner: str

    @classmethod
    def of(cls, run_dir: Path) -> "Trial | None":
        """That of the job in ``run_dir``; None if it is of no search."""
        path = run_dir / FILE
        return cls(**json.loads(path.read_text("utf-8"))) if path.is_file() else None

    def write(self, run_dir: Path) -> None:
        """Write it into ``run_dir``, which is made."""
        run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(run_dir / FILE, json.dumps(vars(self), indent=1).encode() + b"\n")

    def is_hopeless(self, epoch: int, value: float) -> bool:
        """Report the ``value`` after ``epoch``, and say whether the trial is to end here."""
        import optuna

        study = open_study(self.study, self.storage, self.pruner)
        trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[self.number]._trial_id)
        trial.report(value, epoch)
        return bool(trial.should_prune())


def check_storage(storage: str) -> None:
    """Raise ConfigError if the address ``storage`` holds a password; to be called before anything is written."""
    shown = re.sub(r"(://[^/@:]*):[^/]*@", r"\1:***@", storage)
    shown = re.sub(r"([?&]password=)[^&]*", r"\1***", shown)
    if shown != storage:
        raise ConfigError(
            f"hydra.sweeper.storage={shown}: would write the password into the sweep's folder; leave it out, and set "
            f"the variable {PASSWORD} to it"
        )


def open_study(name: str, storage: str, pruner: str = "none") -> "Study":
    """The study ``name`` in ``storage``; made if it is not there.

    Args:
        name: of the study.
        storage: an address as SQLAlchemy has them, without a password, which is taken from the environment.
        pruner: of :data:`PRUNERS`.

    Raises:
        ConfigError: the address holds a password, or is none.
        DigitsError: Optuna or the driver is not installed, or the server cannot be reached.
    """
    try:
        import optuna
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
    except ImportError as error:
        raise DigitsError(f"hydra/sweeper=search: {error}; pip install 'deepdigits[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    check_storage(storage)
    try:
        url = make_url(storage)
        if password := os.environ.get(PASSWORD):
            url = url.set(password=password)
        options: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.drivername.startswith("sqlite") else {}
        for tries in range(5, -1, -1):
            try:
                database = optuna.storages.RDBStorage(url.render_as_string(hide_password=False), options)
                chosen: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
                if pruner == "median":
                    chosen = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)  # epochs count from 1
                return optuna.create_study(
                    storage=database, study_name=name, pruner=chosen, direction="minimize", load_if_exists=True
                )
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
                if not tries:
                    raise
                time.sleep(0.5)  # another process makes the tables at this moment, or the server is just starting
    except (ArgumentError, NoSuchModuleError, ValueError) as error:  # ValueError: of a port that is no number
        raise ConfigError(f"hydra.sweeper.storage={storage}: {_line(error)}; as sqlite:////path/study.db") from error
    except ImportError as error:
        raise DigitsError(f"hydra.sweeper.storage={storage}: {_line(error)}; install that driver") from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise DigitsError(f"hydra.sweeper.storage={storage}: {_line(error)}") from error
    raise AssertionError


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
