"""The table of a sweep (``train.py -m``): one row per job, read from the files that the jobs wrote."""

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from digits.files import write_atomically
from digits.report.next_steps import next_steps
from digits.report.tables import DATASETS, duration, one_line

VAL_ACCURACY = "val/sparse_accuracy"
RESULTS = ("dataset", VAL_ACCURACY, "test/sparse_accuracy", "test/errors", "seconds", "status", "error")
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {  # heading: key in a row, how to format it
    "val": (VAL_ACCURACY, "{:.2%}".format),
    "test": ("test/sparse_accuracy", "{:.2%}".format),
    "errors": ("test/errors", "{:,}".format),
    "time": ("seconds", duration),
    "status": ("status", str),
}


def collect(sweep_dir: Path) -> list[dict[str, Any]]:
    """One row per job of the sweep in ``sweep_dir``: best validation accuracy first, jobs that did not complete last.

    Jobs without a validation accuracy are sorted by number. All rows have the same keys: ``job`` (its folder in
    ``sweep_dir``), one for each override of any job (its text, or None), and ``RESULTS``.
    """
    folders = {found.parent for found in sweep_dir.rglob(".hydra")} - {sweep_dir}
    folders |= {found for found in sweep_dir.glob("[0-9]*") if found.is_dir() and not [*found.rglob(".hydra")]}
    rows = [_read_job(sweep_dir, folder) for folder in sorted(folders, key=lambda folder: _natural_key(str(folder)))]
    overrides = dict.fromkeys(key for row in rows for key in row if key not in ("job", *RESULTS))
    rows = [{key: row.get(key) for key in ("job", *overrides, *RESULTS)} for row in rows]
    return sorted(rows, key=lambda row: (row["status"] != "completed", -(row[VAL_ACCURACY] or 0)))  # stable


def report_sweep(sweep_dir: Path, console: Console | None = None) -> int:
    """Print a sweep's table and write it to `sweep.csv` in ``sweep_dir``; returns how many jobs did not complete."""
    console = console or Console()
    rows = collect(sweep_dir)
    if not rows:
        console.print(Text(f"No jobs in {sweep_dir}"), soft_wrap=True)
        return 0
    overrides = {key: [row[key] or "" for row in rows] for key in rows[0] if key not in ("job", *RESULTS)}
    varied = {key: cells for key, cells in overrides.items() if len({*cells} - {""}) > 1}
    short_names = {key: re.split(r"[./]", key)[-1] for key in varied}
    uses = Counter([*short_names.values(), "job", *COLUMNS])
    swept = {short_names[key] if uses[short_names[key]] == 1 else key: cells for key, cells in varied.items()}
    columns = {"job": [row["job"] for row in rows], **swept}
    for name, (key, show) in COLUMNS.items():
        columns[name] = ["" if row[key] is None else show(row[key]) for row in rows]
    if swept and sum(2 + max(map(len, [name, *cells])) for name, cells in columns.items()) > console.width:
        pairs = [" ".join(map("=".join, zip(swept, cells, strict=True))) for cells in zip(*swept.values(), strict=True)]
        columns = {"job": columns["job"], "overrides": pairs, **{name: columns[name] for name in COLUMNS}}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        fixed = name in COLUMNS
        table.add_column(Text(name), overflow="fold", no_wrap=fixed, justify="right" if fixed else "left")
    for row, *cells in zip(rows, *columns.values(), strict=True):  # as Text, since Rich would take "[1,2]" for markup
        table.add_row(*map(Text, cells), style="" if row["status"] == "completed" else "red")
    console.print(table)
    common = [f"{key}={max(cells)}" for key, cells in overrides.items() if key not in varied]  # max: skips empty cells
    console.print(Text(f"All jobs: {' '.join(common)}" if common else ""))
    if list(varied) == ["seed"] and (spread := _seed_statistics(rows)):
        console.print(Text(spread))
    for row in filter(lambda row: row["error"], rows):  # below the table, as a long reason needs the whole width
        console.print(Text(f"Job {row['job']} {row['status']}: {row['error']}", style="red"))
    if any(row["dataset"] == "mnist-5k" for row in rows):
        console.print(Text(f"*** {DATASETS['mnist-5k']} ***", style="bold yellow"))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(sweep_dir / "sweep.csv", text.getvalue().encode())
    console.print(Text(str(sweep_dir / "sweep.csv")), soft_wrap=True)
    if rows[0]["status"] == "completed" and rows[0][VAL_ACCURACY] is not None:  # then the first is the best one
        best, dataset = sweep_dir / rows[0]["job"], rows[0]["dataset"]
        for line in next_steps(best, dataset, sweep_dir, f"Next, with the best, job {rows[0]['job']}:"):
            console.print(Text(line), soft_wrap=True)
    return sum(row["status"] != "completed" for row in rows)


class SweepTable(Callback):
    """Hydra callback that prints the table after a sweep; it only reads files, so it works with any launcher."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Raise SystemExit(2) if the folder has jobs of an earlier sweep, as the table would count them too."""
        folder = Path(config.hydra.sweep.dir)
        if any(folder.rglob(".hydra")):
            reason = "holds runs of an earlier sweep; name another"
            print(f"{sys.argv[0]}: hydra.sweep.dir={folder}: {reason}", file=sys.stderr)
            raise SystemExit(2)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report the sweep in ``config.hydra.sweep.dir``; raises SystemExit(1) when a job did not complete."""
        if report_sweep(Path(config.hydra.sweep.dir)):
            raise SystemExit(1)  # not an Exception, which Hydra would turn into a warning


def _seed_statistics(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the completed jobs if only their seeds differ; empty for fewer than two jobs."""
    done = [row for row in rows if row["status"] == "completed" and row["test/errors"] is not None]
    if len(done) < 2:
        return ""
    accuracy, errors = ([row[key] for row in done] for key in ("test/sparse_accuracy", "test/errors"))
    return (
        f"{len(done)} seeds, mean and standard deviation: test {mean(accuracy):.3%}, {stdev(accuracy):.3%}; "
        f"errors {mean(errors):.1f}, {stdev(errors):.1f}"
    )


def _read_job(sweep_dir: Path, folder: Path) -> dict[str, Any]:
    job: dict[str, Any] = {"job": folder.relative_to(sweep_dir).as_posix()}
    path = folder / ".hydra" / "overrides.yaml"
    overrides = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else []  # interpolations stay text
    for override in cast(list[str], overrides):
        key, _, value = override.partition("=")
        job[key.lstrip("+")] = value
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        return job | {"status": "failed", "error": "no summary.json: the job ended before it could write one"}
    except ValueError as error:
        return job | {"status": "failed", "error": f"summary.json is not JSON: {error}"}
    results = {key: summary.get(key) for key in RESULTS}
    reason = results["error"] and one_line(results["error"])
    return job | results | {"status": results["status"] or "failed", "error": reason}


def _natural_key(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
