"""Training and evaluation of the same network here and in Keras on TensorFlow, timed in turns on the same machine.

    python benchmarks/vs_keras.py                                          a quarter of an hour on two cores
    python benchmarks/vs_keras.py --batch-size 512 --precision float32     some minutes

Each side is a process that stays alive and sleeps while the other one works: this project as `python train.py
experiment=deepdigits` runs it (Lightning, Adam, L2, dropout, metrics, the data module), Keras as `model.fit` and its
validation run it, with the same settings on the same images. In a round one side and then the other does a number of
training steps and an evaluation of the test images (this project always in batches of 2,500), timed from the first
batch to the last. A warm-up round, in which both sides compile, comes first and is not counted. For each side the
median of the images per second over the rounds is printed, with their ratio and the share of the machine's peak, a
large matrix product in the same precision, that this project's arithmetic reaches; at the end, the best of each side
over all batch sizes and precisions.

TensorFlow conflicts with torch in one environment, so it is installed, about a gigabyte, into one of its own.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from deepdigits_worker import PRECISIONS

from digits.data.mnist import load_digits
from digits.errors import DigitsError

HERE = Path(__file__).resolve().parent
REQUIREMENTS = ["tensorflow-cpu==2.21.*", "keras==3.15.*"]


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(
        description="Images a second of this project and of Keras on TensorFlow, in training and in evaluation.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--batch-size", type=_positive_int, nargs="+", default=[128, 512], metavar="N", help="batch sizes"
    )
    parser.add_argument(
        "--precision", nargs="+", default=["float32", "bfloat16"], choices=PRECISIONS, help="of the arithmetic"
    )
    parser.add_argument("--rounds", type=_positive_int, default=3, metavar="N", help="rounds that are measured")
    parser.add_argument("--steps", type=_positive_int, default=40, metavar="N", help="training steps of a round")
    parser.add_argument(
        "--threads", type=_positive_int, default=_cpu_count(), metavar="N", help="of each side; all cores"
    )
    parser.add_argument(
        "--env",
        type=Path,
        default=Path.home() / ".cache" / "deepdigits" / "vs-keras-venv",
        metavar="DIR",
        help="virtual environment of the Keras side, made if it is not there",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("DIGITS_DATA_DIR") or "~/.cache/deepdigits",
        metavar="DIR",
        help="folder that holds MNIST/raw, or will",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures to this file")
    arguments = parser.parse_args()
    # huge pages, as train.py uses them; both workers inherit this, and TensorFlow ignores it
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        if arguments.json:
            arguments.json.touch()  # fails before the measurements, not after them
        results = compare(arguments)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    except (DigitsError, OSError) as error:
        sys.exit(f"vs_keras.py: {error}")


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure each precision at each batch size, print a table, and return all figures.

    Raises:
        DigitsError: the environment cannot be created, or a side fails.
    """
    python = keras_environment(arguments.env)
    digits = load_digits("mnist", arguments.data_dir)
    results: dict[str, Any] = {
        "processor": _processor_name(),
        "threads": arguments.threads,
        "dataset": digits.name,
        "steps": arguments.steps,
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "digits.npz"
        np.savez(file, **{name: value.numpy() for name, value in vars(digits).items() if name != "name"})
        for precision in arguments.precision:
            for batch_size in arguments.batch_size:
                job = {
                    "batch_size": batch_size,
                    "precision": precision,
                    "steps": min(arguments.steps, len(digits.train_labels) // batch_size),
                    "threads": arguments.threads,
                    "digits": str(file),
                    "data": {"mnist": "mnist", "mnist-5k": "mnist5k"}[digits.name],
                    "data_dir": str(arguments.data_dir),
                    "run_dir": folder,
                }
                if not job["steps"]:
                    raise DigitsError(
                        f"--batch-size {batch_size}: {digits.name} has only {len(digits.train_labels):,} images"
                    )
                with (
                    WorkerProcess("DeepDigits", [sys.executable, str(HERE / "deepdigits_worker.py")], job) as ours,
                    WorkerProcess("Keras", [str(python), str(HERE / "keras_worker.py")], job) as theirs,
                ):
                    if ours.info["parameters"] != theirs.info["parameters"]:
                        raise DigitsError(f"not the same network: {ours.info} and {theirs.info}")
                    if not results["rows"]:
                        results |= {"ours": ours.info["version"], "keras": theirs.info["version"]}
                        print(_table_head(results))
                    rounds = [_run_round(ours, theirs) for _ in range(1 + arguments.rounds)][1:]
                for what in ("train", "evaluate"):
                    row = {"precision": precision, "batch_size": batch_size, "what": what}
                    row |= {side: [figures[side, what] for figures in rounds] for side in ("ours", "keras")}
                    row["ratio"] = statistics.median(row["ours"]) / statistics.median(row["keras"])
                    flops = statistics.median(row["ours"]) * ours.info["flops"][what]
                    row["share_of_peak"] = flops / ours.info["peak"]
                    results["rows"].append(row)
                    print(_table_row(row), flush=True)
    for what in ("train", "evaluate"):
        best = {
            side: max(statistics.median(row[side]) for row in results["rows"] if row["what"] == what)
            for side in ("ours", "keras")
        }
        results[f"best_{what}"] = best | {"ratio": best["ours"] / best["keras"]}
        print(
            f"best {what}: {best['ours']:,.0f} against {best['keras']:,.0f}, {best['ours'] / best['keras']:.2f} times"
        )
    return results


def _run_round(ours: "WorkerProcess", theirs: "WorkerProcess") -> dict[tuple[str, str], float]:
    figures = {}
    for name, side in (("ours", ours), ("keras", theirs)):
        time.sleep(0.5)  # until the other side's threads are asleep
        for what in ("train", "evaluate"):
            figures[name, what] = side.images_per_second(what)
    return figures


def _table_head(results: dict[str, Any]) -> str:
    return (
        f"{results['processor']}, {results['threads']} threads, {results['dataset']}\n"
        f"{results['ours']}; {results['keras']}\n"
        "images/s, median (lowest to highest)\n"
        f"precision  batch  what      {'DeepDigits':26}{'Keras':26}ratio  of peak"
    )


def _table_row(row: dict[str, Any]) -> str:
    sides = [
        f"{f'{statistics.median(row[side]):,.0f} ({min(row[side]):,.0f} to {max(row[side]):,.0f})':26}"
        for side in ("ours", "keras")
    ]
    head = f"{row['precision']:9}{row['batch_size']:7}  {row['what']:10}"
    return f"{head}{''.join(sides)}{row['ratio']:5.2f}  {row['share_of_peak']:.0%}"


class WorkerProcess:
    """The process of one side: it starts, describes itself in ``info``, and then works only on command."""

    def __init__(self, name: str, command: list[str], job: dict[str, Any]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process runs
        environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"]), "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._process = subprocess.Popen(
            [*command, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self.info: dict[str, Any] = {}

    def __enter__(self) -> "WorkerProcess":
        self.info = self._read_answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def images_per_second(self, what: str) -> float:
        """Run ``what``, "train" or "evaluate", on this side."""
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        answer = self._read_answer()
        return answer["images"] / answer["seconds"]

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._errors.seek(0)
        raise DigitsError(f"the {self.name} side failed:\n{''.join(self._errors.readlines()[-15:])}")


def keras_environment(folder: Path) -> Path:
    """The Python of the virtual environment in ``folder``, which is created if it is missing or incomplete.

    Raises:
        DigitsError: it cannot be created, for example without a network.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "requirements.txt"  # written last, so it marks a complete environment
    if complete.is_file() and complete.read_text().split() == REQUIREMENTS and python.exists():
        return python
    print(f"installing {' and '.join(REQUIREMENTS)} into {folder}: once, some minutes", file=sys.stderr)
    try:
        venv.create(folder, symlinks=os.name != "nt", with_pip=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise DigitsError(f"no virtual environment could be made in {folder}: {error}") from error
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    if pip.returncode:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")] or [pip.stderr.strip()]
        raise DigitsError(f"{' and '.join(REQUIREMENTS)} could not be installed into {folder}: {errors[-1]}")
    complete.write_text("\n".join(REQUIREMENTS) + "\n")
    return python


def _positive_int(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return number


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
