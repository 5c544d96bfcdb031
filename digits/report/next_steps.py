"""What to do after a run: commands that can be copied, with the folder of the run in them."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from digits.settings.targets import config_dirs


def print_next_steps(summary: dict[str, Any]) -> None:
    """Print what to do after the run of ``summary``; nothing after one that has not completed or left no model."""
    if summary.get("status") == "completed" and "run_dir" in summary:
        run_dir = Path(summary["run_dir"])
        shown = seen_from_here(run_dir)
        logs = run_dir if shown.is_absolute() else Path(*shown.parts[:1])  # `runs`, where it is beside others
        for line in next_steps(run_dir, summary.get("dataset"), logs):
            print(line)


def next_steps(run_dir: Path, dataset: str | None, logs: Path, heading: str | None = None) -> list[str]:
    """At most 6 lines that say what to do with a run, of 76 characters with the default's folder; none without a model.

    Args:
        run_dir: the run's folder.
        dataset: that it was trained on; its robustness is scored on the full MNIST alone.
        logs: folder of the runs that TensorBoard is to compare.
        heading: in place of a first line that names the picture of the mistakes.
    """
    if not (run_dir / "model" / "model.safetensors").is_file():
        return []
    run = shlex.quote(str(seen_from_here(run_dir)))
    picture = shlex.quote(str(seen_from_here(run_dir / "plots" / "mistakes.png")))
    lines = [heading or f"Next: look at {picture}, or"]
    activate = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("digits") is None and activate.is_file():
        lines.append(f"  . {shlex.quote(str(seen_from_here(activate)))}")
    own = "".join(f" --config-dir {shlex.quote(str(seen_from_here(folder)))}" for folder in config_dirs()[1:])
    lines += [f"  digits predict PICTURE --model {run}{own}", f"  digits demo --model {run}{own}"]
    if dataset == "mnist":
        lines.append(f"  digits evaluate {run} --robustness{own}")
    if any(run_dir.glob("events.out.tfevents.*")):
        lines.append(f"  tensorboard --logdir {shlex.quote(str(seen_from_here(logs)))}")
    return lines


def seen_from_here(path: Path) -> Path:
    """``path`` from the working folder if it is in there, else as it is."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  # links stay links
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path
