"""What a sweep has found, at any time: a table on the terminal, and `sweep.csv`, `sweep.png` and `README.md`."""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hydra._internal.utils import get_args_parser
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from digits.errors import DigitsError, printable
from digits.files import write_atomically
from digits.report.next_steps import next_steps, seen_from_here
from digits.report.tables import DATASETS
from digits.sweep.folder import Record
from digits.sweep.importance import importances
from digits.sweep.jobs import (
    COMPLETED,
    CROSS_ENTROPY,
    PRUNED,
    RUNNING,
    STATES,
    TEST_ACCURACY,
    VAL_ACCURACY,
    Job,
    read_jobs,
)
from digits.sweep.ranking import Figure, Setting, ranks, settings_of, short_names, text_of, varied_keys, verdict

NOT_RANKED = (
    "Nothing is held out (data.val_size=0), so the settings are not ranked: ranking by the test split would make its "
    "figures meaningless."
)
LEGEND = (
    "n: completed jobs, which differ by the seed alone; validation and test: accuracy, mean ± standard deviation; "
    "95 %: interval of the mean of the validation; entropy: cross-entropy of the validation images, without the L2 "
    "term. Each job is a row of [sweep.csv](sweep.csv)."
)
MOST_ROWS = 30  # on the terminal
FIGURES = (VAL_ACCURACY, CROSS_ENTROPY, TEST_ACCURACY, "test/errors", "seconds")


def report(folders: Sequence[Path], console: Console | None = None) -> int:
    """Print what the sweeps in ``folders`` have found, together, and write it into the first of them.

    Returns:
        How many jobs are neither completed nor pruned, those that have not begun among them.

    Raises:
        DigitsError: there is no job in the folders.
    """
    console = console or Console()
    jobs = read_jobs(folders)
    if not jobs:
        named = ", ".join(map(str, folders))
        raise DigitsError(f"{named}: no job of a sweep there; runs/<name>/sweep_<time> is the folder of one")
    missing = _not_begun(folders, jobs)
    open_jobs = [job for job in jobs if job.state not in (COMPLETED, PRUNED)]
    settings, ranked = settings_of(jobs), ranks(jobs)
    heading, sentence = counts(jobs, missing), verdict(settings) if ranked else NOT_RANKED
    written = _write(folders[0], jobs, settings, heading, sentence, ranked)  # first: a pipe may end what is printed
    console.print(Text(f"\n{printable(heading)}", style="bold"))
    console.print(_table(settings, console))
    if sentence:
        console.print(Text(printable(sentence)))
    for job in open_jobs[:MOST_ROWS]:
        style = "" if job.state == RUNNING else "red"
        console.print(Text(printable(f"{job.name} {job.state}" + f": {job.reason}" * bool(job.reason)), style=style))
    if any(job.summary.get("dataset") == "mnist-5k" for job in jobs):
        console.print(Text(f"*** {DATASETS['mnist-5k']} ***", style="bold yellow"))
    console.print(Text(f"{', '.join(written)} are in:\n{folders[0]}"), soft_wrap=True)
    if ranked and settings[0].completed:
        for line in best_lines(folders, settings[0]):
            console.print(Text(printable(line)), soft_wrap=True)
    return missing + len(open_jobs)


def counts(jobs: Sequence[Job], missing: int) -> str:
    """As `18 jobs: 15 completed, 1 killed, 2 not begun`."""
    states = Counter(job.state for job in jobs)
    parts = [f"{states[state]} {state}" for state in STATES if states[state]]
    parts += [f"{missing} not begun"] * bool(missing)
    total = len(jobs) + missing
    return f"{total} job{'s' * (total != 1)}: {', '.join(parts)}"


def best_lines(folders: Sequence[Path], best: Setting) -> list[str]:
    """The command of the best setting, where its models are, and what to do with one."""
    record = next(filter(None, map(Record.of, folders)), None)
    lines = ["The best again:", f"  {_command(record, best.completed[0])}"] if record is not None else []
    models = [job.folder for job in best.completed if (job.folder / "model" / "model.safetensors").is_file()]
    if not models:
        return lines
    shown = [shlex.quote(str(seen_from_here(folder))) for folder in models]
    lines += next_steps(models[0], best.completed[0].summary.get("dataset"), folders[0], f"Its model: {shown[0]}/model")
    if len(shown) > 1:
        lines.append(f"  digits ensemble {' '.join(shown)}")
    return lines


def _command(record: Record, job: Job) -> str:
    """The command of one ``job`` of the sweep, as a single run."""
    options = get_args_parser().parse_known_args(record.arguments)[0]
    kept = [f"--config-dir={options.config_dir}"] if options.config_dir else []
    return f"{record.called} {shlex.join([*kept, *map(str, job.summary.get('overrides') or ())])}"


def _table(settings: Sequence[Setting], console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown = [setting for setting in settings if any(job.state != PRUNED for job in setting.jobs)]
    columns, figures = _columns(shown[:MOST_ROWS], _sign(console))
    widths = [max(map(len, [name, *cells])) + 2 for name, cells in [*columns.items(), *figures.items()]]
    if sum(widths) > console.width and columns:
        columns = {"setting": [setting.words() for setting in shown[:MOST_ROWS]]}
    for name in [*columns, *figures]:
        side: Literal["left", "right"] = "right" if name in figures else "left"
        table.add_column(Text(printable(name)), overflow="fold", no_wrap=name in figures, justify=side)
    for setting, *cells in zip(shown, *columns.values(), *figures.values(), strict=False):
        done = all(job.state in (COMPLETED, PRUNED) for job in setting.jobs)
        shown_cells = [Text(printable(cell)) for cell in cells]  # as Text: Rich would take "[1]" for markup
        table.add_row(*shown_cells, style="" if done else "red")
    if len(shown) > MOST_ROWS:
        table.caption = f"and {len(shown) - MOST_ROWS} more, in sweep.csv"
    return table


def _columns(settings: Sequence[Setting], sign: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The columns of the table, those of the keys and those of the figures; one without anything in it is left out."""
    names = short_names(list(dict.fromkeys(key for setting in settings for key in setting.values)))
    keys = {
        name: [text_of(setting.values[key]) if key in setting.values else "" for setting in settings]
        for key, name in names.items()
    }
    rows = [_figures(setting, sign) for setting in settings]
    figures = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return keys, {name: cells for name, cells in figures.items() if any(cells)}


def _figures(setting: Setting, sign: str) -> dict[str, str]:
    accuracy, test, entropy = (setting.figure(key) for key in (VAL_ACCURACY, TEST_ACCURACY, CROSS_ENTROPY))
    completed, all_jobs = len(setting.completed), len(setting.jobs)
    return {
        "n": str(completed) if completed == all_jobs else f"{completed}/{all_jobs}",
        "validation": _percent(accuracy, sign),
        "95 %": "" if accuracy.interval is None else "{:.2f}-{:.2f}".format(*(100 * end for end in accuracy.interval)),
        "entropy": f"{entropy.mean:.4f}" if entropy.values else "",
        "test": _percent(test, sign),
    }


def _percent(figure: Figure, sign: str) -> str:
    if not figure.values:
        return ""
    return f"{figure.mean:.2%}" + ("" if figure.deviation is None else f" {sign} {100 * figure.deviation:.2f}")


def _sign(console: Console) -> str:
    try:
        "±".encode(console.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "+-"
    return "±"


def _not_begun(folders: Sequence[Path], jobs: Sequence[Job]) -> int:
    records = [*filter(None, map(Record.of, folders))]
    if any(record.trials for record in records):  # of one study, for which several processes may have worked
        done = sum(job.state in (COMPLETED, PRUNED, RUNNING) for job in jobs)
        return max(min(sum(record.jobs for record in records), max(record.trials for record in records)) - done, 0)
    return max(sum(record.jobs for record in records) - len(jobs), 0) if records else 0


def _write(
    target: Path, jobs: Sequence[Job], settings: Sequence[Setting], heading: str, sentence: str, ranked: bool
) -> list[str]:
    """Write `sweep.csv`, `sweep.png` and `README.md` into ``target``; returns their names."""
    words = [str(word).lstrip("+").partition("=")[0] for job in jobs for word in job.summary.get("overrides") or ()]
    named = [key for key in words if any(key in job.settings for job in jobs)]  # also where it has one value alone
    keys = list(dict.fromkeys([*varied_keys(jobs), *named]))
    write_atomically(target / "sweep.csv", _csv(jobs, keys).encode())
    names = ["sweep.csv"]
    drawn = _draw(target, settings, ranked)
    if drawn:
        names.append("sweep.png")
    write_atomically(target / "README.md", _markdown(target, settings, heading, sentence, bool(drawn)).encode())
    return [*names, "README.md"]


def _csv(jobs: Sequence[Job], keys: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["job", "status", *keys, *FIGURES, "error"])
    for job in jobs:
        cells = [job.settings.get(key) for key in keys]
        writer.writerow([job.name, job.state, *cells, *(job.figure(key) for key in FIGURES), job.reason])
    return text.getvalue()


def _draw(target: Path, settings: Sequence[Setting], ranked: bool) -> bool:
    scored = [setting for setting in settings if setting.figure(VAL_ACCURACY).values] if ranked else []
    if not scored:
        return False
    from digits.report.sweep_plots import Point, draw_sweep  # with matplotlib

    keys = list(dict.fromkeys(key for setting in scored for key in setting.values))
    names = short_names(keys)
    points = [Point({names[k]: s.values.get(k) for k in keys}, s.figure(VAL_ACCURACY).values) for s in scored]
    dataset = str(scored[0].completed[0].summary.get("dataset", ""))
    draw_sweep(points, dataset, target / "sweep.png", importances(scored, names) if len(keys) > 2 else None)
    return True


def _markdown(target: Path, settings: Sequence[Setting], heading: str, sentence: str, drawn: bool) -> str:
    columns, figures = _columns(settings, "±")
    columns |= figures
    lines = [f"# {target.resolve().name}", "", f"{heading}.", ""]
    lines += ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    for cells in zip(*columns.values(), strict=True):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", sentence, ""] if sentence else [""]
    if drawn:
        lines += ["![What the sweep found](sweep.png)", ""]
    if drawn and settings[0].completed:
        lines += ["```", *best_lines([target], settings[0]), "```", ""]
    return "\n".join([*lines, LEGEND, ""])
