"""The figures of a run, printed as tables and written as JSON."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from digits.errors import DigitsError, one_line, printable
from digits.files import member, read_json, write_atomically

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MAX_SUMMARY_BYTES = 10_000_000  # those of runs have some 10 kB, those of large folders of pictures more
DATASETS = {
    "mnist": "MNIST",
    "mnist-5k": "mnist-5k: the 5,000 embedded digits, does not compare with full MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
}


def per_digit(labels: "ArrayLike", predicted: "ArrayLike") -> list[dict[str, float | int]]:
    """One row per digit, 0 to 9: ``digit``, ``images``, ``correct``, ``precision`` and ``recall`` (both in [0, 1]).

    The precision of a digit that was never predicted is 0.0, and so is the recall of one without images. ``labels`` and
    ``predicted`` are the true and the predicted digits (N,), integers 0 to 9.
    """
    import numpy as np  # not with the module, as `train.py --help` would wait for it

    labels, predicted = np.asarray(labels), np.asarray(predicted)
    rows: list[dict[str, float | int]] = []
    for digit in range(10):
        true, guess = labels == digit, predicted == digit
        images, correct = int(true.sum()), int((true & guess).sum())
        shares = {"precision": correct / max(int(guess.sum()), 1), "recall": correct / max(images, 1)}
        rows.append({"digit": digit, "images": images, "correct": correct, **shares})
    return rows


def print_run(summary: dict[str, Any], console: Console | None = None, what: str = "Run") -> None:
    """Print a short table of a run's results, and the path of its folder on a line of its own, never wrapped.

    Args:
        summary: the content of ``summary.json``; values that are missing or None are left out.
        console: where to print; by default the terminal.
        what: the first word of the heading.
    """
    console = console or Console()
    known = {key: value for key, value in _to_jsonable(summary).items() if value is not None}
    status, dataset = one_line(known.get("status", "status unknown")), str(known.get("dataset", ""))

    def part(form: str, key: str) -> str:
        return form.format(known[key]) if key in known else ""

    missed = [(row["images"] - row["correct"], row) for row in known.get("per_digit", [])]
    missed = sorted((pair for pair in missed if pair[0]), key=lambda pair: -pair[0])[:3]
    names = known.get("classes", range(10))
    mislabelled = sum(mistake.get("label_is_wrong", False) for mistake in known.get("test/wrong", []))
    time = [duration(known["seconds"])] if "seconds" in known else []
    digits = part("digits {}", "digits") + part(" ({:.10})", "git_commit")
    rows = {
        "models": [str(model) for model in known.get("models", [])],
        "experiment": [part("{}", "experiment"), part("seed {}", "seed")],
        "network": [part("{}", "model"), part("{:,} parameters", "parameters"), part("goes on from {}", "weights")],
        "dataset": [DATASETS.get(dataset, dataset).partition(":")[0]],
        "images": [part(f"{{:,}} {name}", f"{name}_images") for name in ("train", "own", "drawn", "val", "test")],
        "validation": [part("{:.2%}", "val/sparse_accuracy"), part("loss {:.4f}", "val/loss")],
        "test": [part("{:.2%}", "test/sparse_accuracy"), part("loss {:.4f}", "test/loss")],
        "errors": [
            part("{:,} in the test split" if dataset in DATASETS else "{:,}", "test/errors"),
            part("95 % interval {0[0]:.0f} to {0[1]:.0f}", "test/errors_95"),
        ],
        "not one digit": [
            part("none found in {:,} pictures", "test/none_found"),
            part("several in {:,}; all of them are errors", "test/several_found"),
        ],
        "not read": [f"{len(known['failed']):,} files, which are in no figure"] if known.get("failed") else [],
        "wrong labels": [f"{mislabelled} of these errors are known to be the label's"] if mislabelled else [],
        "calibration": [
            part("error {:.2%}", "test/ece"),
            part("loss {:.4f}", "test/nll"),
            part("at temperature {}", "temperature"),
        ],
        "most missed": [f"{names[row['digit']]} ({count} of {row['images']:,})" for count, row in missed],
        "epochs": [
            *(part("{}", "epochs"), part("{}", "accelerator"), part("{} processes", "processes")),
            part("{}", "precision"),
        ],
        "time": [*time, part("{:,.0f} images/s", "images_per_second")],
        "versions": [digits, part("torch {}", "torch"), part("lightning {}", "lightning")],
    }
    table = Table(Column(style="bold", no_wrap=True), Column(overflow="fold"), box=None, show_header=False)
    for name, parts in rows.items():
        if any(parts):
            table.add_row(name, Text(one_line(", ".join(filter(None, parts)))))

    colour = {"completed": "green", "interrupted": "yellow", "failed": "red"}.get(status, "")
    console.print(Text(f"\n{what} {status}", style=f"bold {colour}"))
    console.print(table)
    if known.get("before_after"):
        console.print(_before_and_after(known["before_after"]))
    for failure in known.get("failed", []):
        console.print(Text(f"Not read: {one_line(failure)}", style="red"), soft_wrap=True)
    if "error" in known:
        console.print(Text(f"Reason: {one_line(known['error'])}", style="red"))
    if dataset == "mnist-5k":
        console.print(Text(f"*** {DATASETS[dataset]} ***", style="bold yellow"))
    if status != "completed" and "resume_command" in known:
        console.print(Text(f"Go on with:\n{printable(known['resume_command'])}"), soft_wrap=True)
    if "run_dir" in known:  # not wrapped, so that it can be copied or parsed
        console.print(
            Text(f"Everything about this {what.lower()} is in:\n{printable(known['run_dir'])}"), soft_wrap=True
        )


def _before_and_after(rows: list[dict[str, Any]]) -> Table:
    """What :func:`digits.training.pretrained.before_and_after` returned."""
    right = [Column(name, justify="right") for name in ("images", "misread before", "after")]
    table = Table(Column("what training has changed", no_wrap=True), *right, box=None)
    for row in rows:
        table.add_row(row["what"], *(f"{row[key]:,}" for key in ("images", "errors_before", "errors_after")))
    return table


def print_tpu_check(checks: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print what :func:`~digits.training.tpu_check.tpu_check` returned, 80 columns wide, a row for each program."""
    console = console or Console()
    right = [
        Column(name, justify="right", no_wrap=True)
        for name in ("cycles", "ms", "images/s", "host", "busy", "reduces", "MB", "compiled")
    ]
    table = Table(Column("step", no_wrap=True), *right, box=None)
    for check in checks:
        many = {f"x{check['steps_per_execution']}": check} if check["steps_per_execution"] > 1 else {}
        programs = {"train": check["single_step"], **many, "test": check["test"]}
        table.add_row(check["topology"])
        for program, found in programs.items():
            table.add_row(
                f" {program}",
                f"{found['estimated_cycles']:,}",
                f"{found['estimated_milliseconds']:.2f}",
                f"{found['estimated_images_per_second']:,.0f}",
                f"{found['host_milliseconds']:.2f}" if "host_milliseconds" in found else "",
                f"{found['busy_share']:.0%}" if "busy_share" in found else "",
                str(found["all_reduces"]),
                f"{found['memory_bytes_per_chip'] / 1e6:,.0f}",
                f"{found['compile_seconds']:.1f}",
            )
    console.print(table)
    fallbacks = {name for check in checks for name in check["host_fallbacks"]}
    first = checks[0]
    console.print(
        f"\n{first['global_batch'] // first['chips']:,} images a chip and step, {first['precision']}\n"
        f"operators that fall back to the host: {', '.join(sorted(fallbacks)) or 'none'}\n"
        f"cycles: of a step, the compiler's estimate; ms, images/s: the same at {first['clock_hz'] / 1e9} GHz\n"
        "host: ms that this machine takes for a step, measured; busy: how much of the time\n"
        f"the chips then compute; x{first['steps_per_execution']}: a step of so many in one program\n"
        "reduces: all-reduces; MB: memory a chip; compiled: seconds that it took here\n"
        f"not in these figures: {', '.join(first['not_estimated']) or 'nothing'}\n"
        "Nothing of this has been run on a TPU."
    )


def print_robustness(rows: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print what :func:`digits.evaluation.robustness.robustness` returned: a row per corruption, its errors by size."""
    console = console or Console()
    table = Table(Column("corruption", no_wrap=True), "size: share of the images that are read wrongly", box=None)
    by_corruption: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_corruption.setdefault((row["corruption"], row["unit"]), []).append(row)
    for (name, unit), found in by_corruption.items():
        shares = [f"{row['size']:g}: {row['errors'] / row['images']:.2%}" for row in found]
        text = ", ".join(shares) if unit else f"{found[0]['errors'] / found[0]['images']:.2%}"
        table.add_row(name, f"{text}  [dim]({unit})[/dim]" if unit else text)
    console.print(table)


def duration(seconds: float) -> str:
    """``seconds`` as a short text for a narrow column: 8.3s, 2m 05s, 3h 20m."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h {minutes % 60:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{seconds:.1f}s"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old file or the new one, never half of it.

    NaN and infinities become null, values of numpy and torch plain numbers, and types that JSON lacks become text.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(_to_jsonable(content), indent=2, ensure_ascii=False).encode() + b"\n")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The content of `summary.json` in the ``folder`` of a run, a model or an evaluation; None if there is none.

    Raises:
        DigitsError: it is damaged or cannot be read.
    """
    file = folder / "summary.json"
    try:
        summary = read_json(member(folder, file.name), MAX_SUMMARY_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DigitsError(f"{file}: damaged: {error}; remove it") from error
    except OSError as error:
        raise DigitsError(f"{file}: cannot be read: {error.strerror}") from error
    if not isinstance(summary, dict):
        raise DigitsError(f"{file}: damaged: holds no JSON object; remove it")
    return summary


def _to_jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _to_jsonable(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's and torch's arrays and scalars
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_to_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
