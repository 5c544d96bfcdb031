"""Training and evaluation of the same network here and in Keras on TensorFlow, timed in turns on the same machine.

    python benchmarks/vs_keras.py                                          a quarter of an hour on two cores
    python benchmarks/vs_keras.py --batch-size 512 --precision float32     some minutes

Each side is a process that keeps warm and sleeps while the other works: this project as `python train.py
experiment=deepdigits` runs it (Lightning, Adam, L2, dropout, metrics, the data module), Keras as `model.fit` and its
validation run it, with the same settings on the same images. A round is a number of training steps, then an evaluation
of the test images (here in batches of 2,500 whatever --batch-size says), on one side and then on the other, timed from
the first batch to the last; a round to warm up comes first (both sides compile there) and is left out. Printed are the
images a second of each side, the median over the rounds, and their ratio; the share of the machine's peak, a large
matrix product in the same precision, that this project's arithmetic reaches; and at the end the best of each side over
all batch sizes and precisions.

TensorFlow does not go well with torch in one environment: it is installed once, about a gigabyte, into one of its own.
"""

import argparse
import importlib.metadata
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
from keras_worker import Turns

from digits.data.source import load_digits
from digits.errors import DigitsError
from digits.memory import use_huge_pages

HERE = Path(__file__).resolve().parent
REQUIREMENTS = ["tensorflow-cpu==2.21.*", "keras==3.15.*"]
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}


def main() -> None:
    """Parse, prepare, measure, print."""
    parser = argparse.ArgumentParser(
        description="Images a second of this project and of Keras on TensorFlow, in training and in evaluation.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--batch-size", type=_count, nargs="+", default=[128, 512], metavar="N", help="batch sizes")
    parser.add_argument(
        "--precision", nargs="+", default=["float32", "bfloat16"], choices=PRECISIONS, help="of the arithmetic"
    )
    parser.add_argument("--rounds", type=_count, default=3, metavar="N", help="rounds that are measured")
    parser.add_argument("--steps", type=_count, default=40, metavar="N", help="training steps of a round")
    parser.add_argument("--threads", type=_count, default=_cores(), metavar="N", help="of each side; all cores")
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
    use_huge_pages()  # as train.py does; the workers inherit it, and TensorFlow does not know it
    try:
        if arguments.json:
            arguments.json.touch()  # a file that cannot be written is better known before than after
        results = compare(arguments)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    except (DigitsError, OSError) as error:
        sys.exit(f"vs_keras.py: {error}")


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every precision at every batch size, print a table, and return every figure.

    Raises:
        DigitsError: the environment cannot be made, or a side fails.
    """
    python = keras_environment(arguments.env)
    digits = load_digits("mnist", arguments.data_dir)
    results: dict[str, Any] = {
        "processor": _processor(),
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
                    Side("DeepDigits", [sys.executable, __file__, "--worker"], job) as ours,
                    Side("Keras", [str(python), str(HERE / "keras_worker.py")], job) as theirs,
                ):
                    if ours.hello["parameters"] != theirs.hello["parameters"]:
                        raise DigitsError(f"not the same network: {ours.hello} and {theirs.hello}")
                    if not results["rows"]:
                        results |= {"ours": ours.hello["version"], "keras": theirs.hello["version"]}
                        print(_head(results))
                    rounds = [_round(ours, theirs) for _ in range(1 + arguments.rounds)][1:]
                for what in ("train", "evaluate"):
                    row = {"precision": precision, "batch_size": batch_size, "what": what}
                    row |= {side: [figures[side, what] for figures in rounds] for side in ("ours", "keras")}
                    row["ratio"] = statistics.median(row["ours"]) / statistics.median(row["keras"])
                    flops = statistics.median(row["ours"]) * ours.hello["flops"][what]
                    row["share_of_peak"] = flops / ours.hello["peak"]
                    results["rows"].append(row)
                    print(_line(row), flush=True)
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


def _round(ours: "Side", theirs: "Side") -> dict[tuple[str, str], float]:
    figures = {}
    for name, side in (("ours", ours), ("keras", theirs)):
        time.sleep(0.5)  # until the other side's threads sleep too
        for what in ("train", "evaluate"):
            figures[name, what] = side.images_per_second(what)
    return figures


def _head(results: dict[str, Any]) -> str:
    return (
        f"{results['processor']}, {results['threads']} threads, {results['dataset']}\n"
        f"{results['ours']}; {results['keras']}\n"
        "images/s, median (lowest to highest)\n"
        f"precision  batch  what      {'DeepDigits':26}{'Keras':26}ratio  of peak"
    )


def _line(row: dict[str, Any]) -> str:
    sides = [
        f"{f'{statistics.median(row[side]):,.0f} ({min(row[side]):,.0f} to {max(row[side]):,.0f})':26}"
        for side in ("ours", "keras")
    ]
    head = f"{row['precision']:9}{row['batch_size']:7}  {row['what']:10}"
    return f"{head}{''.join(sides)}{row['ratio']:5.2f}  {row['share_of_peak']:.0%}"


class Side:
    """A worker process: it starts, says hello, and then works on command only."""

    def __init__(self, name: str, command: list[str], job: dict[str, Any]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as the process
        environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"]), "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._process = subprocess.Popen(
            [*command, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self.hello: dict[str, Any] = {}

    def __enter__(self) -> "Side":
        self.hello = self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def images_per_second(self, what: str) -> float:
        """Let the side do ``what``, "train" or "evaluate"."""
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        answer = self._answer()
        return answer["images"] / answer["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._errors.seek(0)
        raise DigitsError(f"the {self.name} side failed:\n{''.join(self._errors.readlines()[-15:])}")


def keras_environment(folder: Path) -> Path:
    """The Python of the virtual environment in ``folder``, which is made where it is lacking or not complete.

    Raises:
        DigitsError: it cannot be made, for example without a network.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "requirements.txt"  # written last
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


def work(job: dict[str, Any]) -> None:
    """Do as `digits.training.train` does, but for ever, and each epoch and evaluation when told to."""
    turns = Turns()
    import lightning as L
    import torch
    from hydra import compose, initialize_config_dir

    from digits.network import DeepDigits
    from digits.overrides import check_settings
    from digits.training import set_up

    class Clock(L.Callback):
        """Waits before each epoch and each evaluation, and reports when it is over."""

        def on_train_epoch_start(self, *_: Any) -> None:
            turns.wait()

        def on_train_batch_start(self, *_: Any) -> None:
            turns.batch_begins()

        def on_train_batch_end(self, *_: Any) -> None:
            turns.batch_ends()

        def on_validation_start(self, *_: Any) -> None:  # after the last batch of the epoch
            turns.done(job["steps"] * job["batch_size"])
            turns.wait()

        def on_validation_batch_start(self, *_: Any) -> None:
            turns.batch_begins()

        def on_validation_batch_end(self, *_: Any) -> None:
            turns.batch_ends()

        def on_validation_end(self, *_: Any) -> None:
            turns.done(len(data.test))

    overrides = [
        f"data={job['data']}",
        "experiment=deepdigits",
        f"data.batch_size={job['batch_size']}",
        "trainer.accelerator=cpu",
        f"trainer.precision={PRECISIONS[job['precision']]}",
        f"trainer.limit_train_batches={job['steps']}",
        "trainer.max_epochs=1000000",
        "trainer.enable_checkpointing=false",  # written after an epoch, when it is the other side's turn
        "trainer.logger=false",
    ]
    with initialize_config_dir(str(HERE.parent / "conf"), version_base="1.3"):
        settings = compose("train", overrides)
    settings.data.data_dir = job["data_dir"]  # no override: a path would have to be quoted for Hydra
    config = check_settings(settings)
    torch.set_num_threads(job["threads"])
    trainer, classifier, data, _ = set_up(config, Path(job["run_dir"]))
    trainer.callbacks.append(Clock())  # type: ignore[attr-defined]
    versions = f"DeepDigits on Lightning {importlib.metadata.version('lightning')} and torch {torch.__version__}"
    turns.say(
        parameters=classifier.network.count_parameters(),
        version=versions,
        flops=count_flops(DeepDigits()),  # of one that is not compiled: the counter looks into torch's operators
        peak=measure_peak(torch.float32 if job["precision"] == "float32" else torch.bfloat16),
    )
    trainer.fit(classifier, data)


def count_flops(network: Any) -> dict[str, float]:
    """Floating-point operations an image, in training ("train") and in evaluation."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    flops = {}
    images = torch.zeros(2, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    flops["train"] = counter.get_total_flops() / len(images)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    flops["evaluate"] = counter.get_total_flops() / len(images)
    network.zero_grad()
    return flops


def measure_peak(dtype: Any, size: int = 2048) -> float:
    """Operations a second of a large matrix product, the best of ten, by torch's BLAS or as a convolution by oneDNN."""
    import torch
    import torch.nn.functional as F

    a, b = torch.randn(2, size, size).to(dtype)
    pixels = a.view(1, size // 32, 32, size).permute(0, 3, 1, 2)  # channels last: the same product
    kernel = b.T.reshape(size, size, 1, 1)
    times = []
    with torch.inference_mode():
        for product in (lambda: a @ b, lambda: F.conv2d(pixels, kernel)):
            for _ in range(10):
                start = time.perf_counter()
                product()
                times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return number


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
    else:
        main()
