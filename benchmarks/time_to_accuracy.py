"""Minutes to 99.4 % of MNIST's test images: this project's default, and DeepDigits_AI's own recipe in Keras.

    python benchmarks/time_to_accuracy.py                    up to two hours on two cores, most of it Keras's
    python benchmarks/time_to_accuracy.py --only ours        some 15 minutes

Both run as a process of their own, one after the other, train on all 60,000 images and are scored on the 10,000 test
images after each epoch. The time runs from the start of the process, imports and set-up included, to the end of the
first epoch whose accuracy is at least the target. This project's run continues to its end, and its final accuracy is
printed too; Keras is stopped at the target or after the original's 80 epochs.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from vs_keras import HERE, keras_environment

from digits.data.mnist import load_mnist
from digits.errors import DigitsError

EPOCH_LINE = re.compile(r"epoch (\d+)/.* test ([\d.]+)%")  # both sides print this
Curve = list[tuple[float, float]]  # for each epoch, seconds since the start and accuracy in percent


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    cache = Path.home() / ".cache" / "deepdigits"
    parser.add_argument("--target", type=float, default=99.4, metavar="PERCENT", help="accuracy to reach")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of this project's runs")
    parser.add_argument("--only", choices=("ours", "keras"), help="leave out the other side")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"), help="of the Keras side")
    parser.add_argument("--env", type=Path, default=cache / "vs-keras-venv", help="environment of the Keras side")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("DIGITS_DATA_DIR") or cache, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every epoch's figures to this file")
    parser.add_argument("overrides", nargs="*", help="for train.py, such as experiment=best")
    options = parser.parse_args()
    try:
        curves = race(options)
        if options.json:
            options.json.write_text(json.dumps(curves, indent=2) + "\n")
    except (DigitsError, OSError) as error:
        sys.exit(f"time_to_accuracy.py: {error}")


def race(options: argparse.Namespace) -> dict[str, Curve]:
    """Run the chosen sides one after the other, print the times, and return all curves.

    Raises:
        DigitsError: a side fails.
    """
    curves: dict[str, Curve] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in [] if options.only == "keras" else options.seeds:
            overrides = [
                "data.val_size=0",
                "data.test_each_epoch=true",
                "data.offline_fallback=false",  # results on the 5,000 embedded digits are not comparable
                f"seed={seed}",
                f"hydra.run.dir={folder}/{seed}",
            ]
            command = [sys.executable, str(HERE.parent / "train.py"), *options.overrides, *overrides]
            environment = {"DIGITS_DATA_DIR": str(options.data_dir)}
            curves[f"DeepDigits, seed {seed}"] = _run(f"DeepDigits, seed {seed}", command, environment)
        if options.only != "ours":
            digits = load_mnist(options.data_dir)
            file = Path(folder) / "digits.npz"
            np.savez(file, **{name: value.numpy() for name, value in vars(digits).items() if name != "name"})
            job = {"digits": str(file), "precision": options.precision, "until": options.target / 100, "epochs": 80}
            command = [str(keras_environment(options.env)), str(HERE / "keras_worker.py"), json.dumps(job)]
            curves["Keras"] = _run(f"Keras, {options.precision}", command, {"TF_CPP_MIN_LOG_LEVEL": "2"})
    times = {name: _time_to(curve, options.target) for name, curve in curves.items()}
    for name, seconds in times.items():
        best, last = max(accuracy for _, accuracy in curves[name]), curves[name][-1]
        reached = f"in {seconds / 60:.2f} minutes" if seconds else f"not reached (best {best:.2f} %)"
        print(f"{name}: {options.target} % {reached}; after {last[0] / 60:.2f} minutes {last[1]:.2f} %")
    ours = [seconds for name, seconds in times.items() if name != "Keras" and seconds]
    if "Keras" in curves and len(ours) == len(curves) - 1 > 0:
        keras = times["Keras"] or curves["Keras"][-1][0]
        print(f"{'' if times['Keras'] else 'more than '}{keras / statistics.mean(ours):.1f} times as fast")
    return curves


def _run(name: str, command: list[str], environment: dict[str, str]) -> Curve:
    start = time.perf_counter()
    curve: Curve = []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | environment
        )
        assert process.stdout is not None
        for line in process.stdout:
            if match := EPOCH_LINE.search(line):
                curve.append((time.perf_counter() - start, float(match[2])))
                print(f"{name}: epoch {match[1]}, {curve[-1][0]:.0f} s, {match[2]} %", file=sys.stderr, flush=True)
        if process.wait():
            errors.seek(0)
            raise DigitsError(f"{name} failed:\n{''.join(errors.readlines()[-15:])}")
    return curve


def _time_to(curve: Curve, target: float) -> float | None:
    return next((seconds for seconds, accuracy in curve if accuracy >= target), None)


if __name__ == "__main__":
    main()
