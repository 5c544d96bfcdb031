"""The folder of a run: who may write there, what it was started with, and what lies there to go on from."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from digits.errors import ConfigError, DigitsError
from digits.files import write_atomically
from digits.report.tables import read_summary
from digits.settings.compare import RECORD, deciding, flat
from digits.settings.schema import Config

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"  # in checkpoints/; PREVIOUS is the one before LAST
LENGTHS = {  # may differ too when a run goes on, where the learning rate does not depend on them
    "recipe.epochs",
    "recipe.min_steps",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.min_epochs",
    "trainer.min_steps",
}
DEVICES = {"trainer.devices", "trainer.num_nodes", "trainer.strategy"}  # with other ones the maths is the same


def is_complete(config: Config, run_dir: Path) -> bool:
    """Whether there is nothing left to do in ``run_dir``: the run that ``config`` describes has ended there.

    Raises:
        ConfigError: another run was started there.
        DigitsError: what the folder says of itself is damaged.
    """
    record = _record(config, run_dir)
    if record is None:
        return False
    _compare(config, record, run_dir)
    summary = read_summary(run_dir) or {}
    here, there = flat(config.model_dump(mode="json")), flat(record)
    longer = any(here.get(key) != there.get(key) for key in LENGTHS | {"trainer.max_time"})
    written = (run_dir / "model" / "model.safetensors").is_file()
    written = written or bool(config.trainer.fast_dev_run) or config.keep == "none"
    return summary.get("status") == "completed" and written and not longer


def checkpoints_to_resume(config: Config, run_dir: Path) -> list[Path]:
    """What the run is to go on from, best first: of several the first that is whole; empty for a fresh start.

    Raises:
        ConfigError: the folder holds a run that was started with other settings.
        DigitsError: what is named does not exist, or the folder does not say what it holds.
    """
    own = [run_dir / "checkpoints" / name for name in (LAST, PREVIOUS)]
    named = _named_checkpoints(config, run_dir)
    inside = bool(named) and named[0].resolve().is_relative_to(run_dir.resolve())
    if not config.resume:
        if inside:
            raise ConfigError(f"ckpt_path={config.ckpt_path}: resume=false replaces what is in {run_dir}")
        return named
    record = _record(config, run_dir)
    if record is not None:
        _compare(config, record, run_dir)
    found = [path for path in own if path.is_file()]
    if inside or (named and not found):
        return named
    if found and record is None:
        raise ConfigError(
            f"{run_dir}: has checkpoints, but no {RECORD} that says what they were trained with; go on from them with "
            "ckpt_path=last, or replace them with resume=false"
        )
    if named and record is not None and record.get("ckpt_path") != config.ckpt_path:
        raise _other(run_dir, "ckpt_path", record.get("ckpt_path"), config.ckpt_path)
    return found


def begin(config: Config, run_dir: Path, fresh: bool) -> None:
    """Note what the run is started with; from here on what an earlier one left in the folder is no longer true of it.

    With ``fresh`` the checkpoints and figures of an earlier run are removed, TensorBoard's among them; its model stays
    until there is a new one.
    """
    outdated = [run_dir / "summary.json"]
    if fresh:
        outdated += [run_dir / "metrics.csv", run_dir / "hparams.yaml", *run_dir.glob("events.out.tfevents.*")]
        outdated += [run_dir / "checkpoints" / name for name in (LAST, PREVIOUS, BEST)]
    for path in outdated:
        path.unlink(missing_ok=True)
    write_atomically(run_dir / RECORD, OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json"))).encode())


def _named_checkpoints(config: Config, run_dir: Path) -> list[Path]:
    """What `ckpt_path` names: a file, a run's folder, or `last` or `best` of ``run_dir``."""
    if config.ckpt_path is None:
        return []
    path = Path(config.ckpt_path).expanduser()
    folder = (run_dir if config.ckpt_path in ("last", "best") else path) / "checkpoints"
    if config.ckpt_path == "best":
        paths = [folder / BEST]
    elif config.ckpt_path == "last" or path.is_dir():
        paths = [folder / LAST, folder / PREVIOUS]
    else:
        paths = [path]
    found = [path for path in paths if path.is_file()]
    if not found:
        where = f"in {folder}" if len(paths) > 1 or config.ckpt_path == "best" else "there"
        raise DigitsError(
            f"ckpt_path={config.ckpt_path}: no checkpoint {where}; runs/<name>/<time> is the folder of a run, and its "
            f"checkpoints are in checkpoints/"
        )
    return found


def _record(config: Config, run_dir: Path) -> dict[str, Any] | None:
    path = run_dir / RECORD
    if not config.resume or not path.is_file():
        return None
    try:
        record = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:  # of YAML and of OmegaConf
        raise DigitsError(f"{path}: damaged; resume=false starts afresh") from error
    if not isinstance(record, dict) or not isinstance(record.get("trainer"), dict):
        raise DigitsError(f"{path}: damaged; resume=false starts afresh")
    return record  # type: ignore[return-value]


def _compare(config: Config, record: dict[str, Any], run_dir: Path) -> None:
    """Raise ConfigError for the first setting with which another result would come out."""
    here, there = deciding(config), deciding(record)
    free = {"ckpt_path"} | DEVICES | (LENGTHS if config.recipe.schedule == "constant" else set())
    for key in dict.fromkeys([*here, *there]):
        before, now = there.get(key, _MISSING), here.get(key, _MISSING)
        if before != now and key not in free:
            raise _other(run_dir, key, before, now)


def _other(run_dir: Path, key: str, before: Any, now: Any) -> ConfigError:
    said = [json.dumps(value).strip('"') if value != _MISSING else "not a setting" for value in (before, now)]
    return ConfigError(
        f"{run_dir}: was started with {key}={said[0]}, not {said[1]}; go on with the same settings, name another "
        "folder with hydra.run.dir=..., or start afresh with resume=false"
    )


_MISSING = "(missing)"
