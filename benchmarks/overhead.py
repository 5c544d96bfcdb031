"""What a run costs beside its arithmetic: the start, `--help`, and in an epoch all that is not the step itself.

    python benchmarks/overhead.py                    a minute on two cores; CPU only, where nothing runs behind the host

A step is the forward pass (with augmentation and metrics), the backward pass and the optimizer. The rest of the time
from the loading of the first batch to the end of the last one is overhead: the data loader, Lightning, weight averaging
and the callbacks.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digits.errors import DigitsError
from digits.settings.command_line import configure
from digits.training.setup import set_up

TRAIN = str(Path(__file__).resolve().parent.parent / "train.py")


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="of the epoch that is timed (default: 200)")
    parser.add_argument("overrides", nargs="*", help="for train.py, such as experiment=deepdigits")
    options = parser.parse_args()
    try:
        one_step = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=0", "trainer.max_epochs=1"]
        one_step += ["recipe.ema_decay=0"]  # it would measure batch statistics before the epoch's line appears
        print(f"--help answers in {seconds_until('Powered by Hydra', ['--help']):.1f} s")
        print(f"the first step is done after {seconds_until('epoch 1/1', [*one_step, *options.overrides]):.1f} s")
        print(f"overhead of an epoch: {epoch_overhead(options.steps, options.overrides):.1%}")
    except (DigitsError, OSError) as error:
        sys.exit(f"overhead.py: {error}")


def seconds_until(text: str, arguments: list[str]) -> float:
    """Seconds from the start of `python train.py ARGUMENTS` to its first line with ``text``, the best of two runs."""
    times = []
    for _ in range(2):  # the first run fills the file cache
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [sys.executable, TRAIN, *arguments, f"hydra.run.dir={folder}"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if text in line:
                    times.append(time.perf_counter() - start)
                    break
            else:
                raise DigitsError(f"{' '.join(command)} did not print {text!r}:\n{''.join(lines[-15:])}")
            process.kill()
            process.communicate()
    return min(times)


def epoch_overhead(steps: int, overrides: list[str]) -> float:
    """The share of the second epoch's wall time that is not the step itself."""
    config = configure(
        [
            "trainer.accelerator=cpu",
            "trainer.max_epochs=2",
            f"trainer.limit_train_batches={steps}",
            "trainer.limit_val_batches=0",
            "logger=none",
            *overrides,
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer, classifier, data, history = set_up(config, Path(folder))
        spent = {"step": 0.0}

        def timed(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                start = time.perf_counter()
                try:
                    return function(*args, **kwargs)
                finally:
                    if trainer.current_epoch == 1:
                        spent["step"] += time.perf_counter() - start

            return wrapper

        # includes forward and backward, as Lightning runs them in a closure inside of the optimizer step
        trainer.strategy.optimizer_step = timed(trainer.strategy.optimizer_step)  # type: ignore[method-assign]
        trainer.fit(classifier, data)
        return 1 - spent["step"] / history.rows[1]["train_seconds"]


if __name__ == "__main__":
    main()
