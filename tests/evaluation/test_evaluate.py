"""`digits evaluate`, `digits ensemble` and `digits export`, as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import FINISHED, configure, needs_full_mnist
from PIL import Image

from digits.__main__ import main
from digits.data.mnist import load_mnist5k
from digits.evaluation import robustness as corruptions
from digits.evaluation.robustness import robustness
from digits.exchange.model_folder import load_model
from digits.network import WEIGHTS
from digits.training.run import train

PLOTS = {"mistakes.png", "confusion.png", "reliability.png", "ten_digits.png"}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run than ``finished``, a shorter one."""
    run_dir = tmp_path_factory.mktemp("other")
    train(configure(*FINISHED, "trainer.max_epochs=2", "seed=1"), run_dir)
    return run_dir


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_scored_as_it_scored_itself(finished: Path, capsys: pytest.CaptureFixture[str]):
    found = evaluate(capsys, "evaluate", finished, "--data", "mnist5k")
    run = json.loads((finished / "summary.json").read_text())
    assert abs(found["test/errors"] - run["test/errors"]) <= 2  # it may have scored itself in bfloat16
    assert found["test/ece"] == pytest.approx(run["test/ece"], abs=0.005)
    assert (found["dataset"], found["test_images"], found["models"]) == ("mnist-5k", 1000, [str(finished)])


def test_a_table_is_printed_without_json(finished: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(finished), "--data", "mnist5k"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Evaluation completed" in lines
    assert any(line.split()[:1] == ["errors"] for line in lines)


def test_an_ensemble_scores_its_members_together(finished: Path, other: Path, capsys: pytest.CaptureFixture[str]):
    losses = [evaluate(capsys, "evaluate", run, "--data", "mnist5k")["test/nll"] for run in (finished, other)]
    together = evaluate(capsys, "ensemble", finished, other, "--data", "mnist5k")
    assert together["test/nll"] < sum(losses) / 2  # as the logarithm is concave, for any two different models
    assert together["models"] == [str(finished), str(other)]


def test_one_model_is_no_ensemble(finished: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["ensemble", str(finished)]) == 2
    assert "takes two models or more" in capsys.readouterr().err


def test_summary_and_plots_are_saved(finished: Path, tmp_path: Path):
    assert main(["evaluate", str(finished), "--data", "mnist5k", "--save", str(tmp_path)]) == 0
    assert {path.name for path in (tmp_path / "plots").iterdir()} == PLOTS
    assert json.loads((tmp_path / "summary.json").read_text())["test_images"] == 1000


def test_the_record_of_a_training_is_not_overwritten(finished: Path, capsys: pytest.CaptureFixture[str]):
    before = (finished / "summary.json").read_text()
    for folder in (finished, finished / "model"):
        assert main(["evaluate", str(finished), "--data", "mnist5k", "--save", str(folder)]) == 2
        assert "is that of a run or a model; name another folder" in capsys.readouterr().err
    assert (finished / "summary.json").read_text() == before


@pytest.mark.parametrize("content", ["7", "{"])
def test_a_damaged_record_is_not_overwritten(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "summary.json").write_text(content)
    assert main(["evaluate", "--data", "mnist5k", "--save", str(tmp_path)]) == 1
    assert "summary.json: damaged: " in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_text() == content


def test_an_evaluation_may_be_saved_again(finished: Path, tmp_path: Path):
    for _ in range(2):
        assert main(["evaluate", str(finished), "--data", "mnist5k", "--save", str(tmp_path)]) == 0


def test_models_may_follow_options(finished: Path, other: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(finished), "--json", str(other), "--data", "mnist5k"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == [str(finished), str(other)]


def test_a_model_is_not_scored_on_its_own_training_digits(capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "--data", "mnist5k"]) == 2  # the package's own was trained on the full MNIST
    assert "training split" in capsys.readouterr().err


def test_a_missing_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", str(tmp_path / "no")]) == 1
    kinds = "a run's folder, a model's folder, a *.ckpt, *.pt, *.keras or *.h5, or owner/model"
    assert capsys.readouterr().err == f"digits: {tmp_path / 'no'}: no model there; {kinds} is one\n"


def test_export_writes_a_model_that_evaluate_takes(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", str(tmp_path / "model"), "--model", str(finished), "--half"]) == 0
    capsys.readouterr()
    exported = evaluate(capsys, "evaluate", tmp_path / "model", "--data", "mnist5k")
    assert exported["test/errors"] == evaluate(capsys, "evaluate", finished, "--data", "mnist5k")["test/errors"]


@pytest.mark.parametrize(
    "command", ["", "predict", "evaluate", "ensemble", "export", "import-keras", "push", "tpu-check"]
)
def test_help_loads_nothing_heavy(command: str):
    code = "import sys; from digits.__main__ import main\ntry: main(sys.argv[1:])\n"
    code += "except SystemExit: sys.exit(int(not {'torch', 'onnx', 'h5py', 'keras'}.isdisjoint(sys.modules)))"
    arguments = [*command.split(), "--help"]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: digits")


# ---- a folder of pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one digit, two for each, and: a blank one, one of two digits and one that cannot be opened."""
    folder = tmp_path_factory.mktemp("pictures")
    digits = load_mnist5k()
    for i in range(20):
        sub = folder / str(int(digits.test_labels[i]))
        sub.mkdir(exist_ok=True)
        large = Image.fromarray(255 - digits.test_images[i].numpy()).resize((140, 140), Image.Resampling.BICUBIC)
        large.save(sub / f"{i}.png")
    Image.new("L", (100, 100), "white").save(folder / "0" / "blank.png")
    two = Image.new("L", (400, 200), "white")
    for x in (20, 220):
        two.paste(Image.open(folder / "7" / "7.png"), (x, 30))
    two.save(folder / "7" / "two.png")
    (folder / "3" / "damaged.png").write_text("no picture")
    (folder / "notes").mkdir()
    (folder / "5" / "notes.txt").write_text("no picture")
    return folder


def test_pictures_are_read_and_scored(pictures: Path, capsys: pytest.CaptureFixture[str]):
    found = evaluate(capsys, "evaluate", "--data", pictures)
    assert (found["dataset"], found["test_images"]) == (str(pictures), 22)
    assert (found["test/none_found"], found["test/several_found"], found["test/errors"]) == (1, 1, 2)
    assert found["failed"] == [
        f"{pictures / '3' / 'damaged.png'}: is no picture that can be read (PNG, JPEG, WebP, TIFF, BMP, GIF)"
    ]
    assert found["test/sparse_accuracy"] == pytest.approx(20 / 22)


def test_not_exactly_one_digit_is_an_error_whatever_its_probabilities_say(
    pictures: Path, capsys: pytest.CaptureFixture[str]
):
    wrong = evaluate(capsys, "evaluate", "--data", pictures)["test/wrong"]
    assert [(Path(row["file"]).name, row["label"], row["read"]) for row in wrong] == [
        ("blank.png", 0, None),
        ("two.png", 7, None),
    ]
    assert wrong[0]["confidence"] == 0.1 and wrong[1]["confidence"] > 0.9


def test_pictures_are_scored_by_several_models_together(pictures: Path, capsys: pytest.CaptureFixture[str]):
    alone = evaluate(capsys, "evaluate", "--data", pictures)
    together = evaluate(capsys, "ensemble", WEIGHTS, WEIGHTS, "--data", pictures)
    for figure in ("test_images", "test/none_found", "test/several_found", "test/errors", "failed"):
        assert together[figure] == alone[figure]
    assert together["test/nll"] == pytest.approx(alone["test/nll"])


def test_pictures_have_their_table_and_plots(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "--data", str(pictures), "--save", str(tmp_path)]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "none found in 1 pictures, several in 1; all of them are errors" in table
    assert f"Not read: {pictures / '3' / 'damaged.png'}: is no picture" in table
    assert "test split" not in table
    assert {path.name for path in (tmp_path / "plots").iterdir()} == PLOTS


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("no/such/folder", "is none of mnist, mnist5k, fashion_mnist, kmnist, and no folder"),
        (".", "no pictures in sub-folders called 0 to 9"),
    ],
)
def test_other_data_is_one_line(data: str, said: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--data", data]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_pictures_that_all_fail_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "a.png").touch()
    assert main(["evaluate", "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"digits: none of the 1 pictures could be read; the first: {tmp_path / '4' / 'a.png'}: is empty\n"
    )


def test_robustness_is_for_mnist_only(pictures: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "--data", str(pictures), "--robustness"]) == 2
    assert "--robustness: goes with MNIST only" in capsys.readouterr().err


# ---- robustness


@pytest.fixture(scope="module")
def rows(finished: Path) -> dict[tuple[str, float], int]:
    digits = load_mnist5k()
    found = robustness([load_model(finished)], digits.test_images[:200], digits.test_labels[:200])
    assert all(row["images"] == 200 for row in found)
    return {(str(row["corruption"]), float(row["size"])): int(row["errors"]) for row in found}


def test_every_corruption_has_its_rows_and_the_first_is_of_the_images_as_they_are(rows: dict):
    assert next(iter(rows)) == ("none", 0.0)
    assert {name for name, _ in rows} == {"none", *corruptions.CORRUPTIONS}


def test_the_worse_the_images_the_more_errors(rows: dict):
    for name in ("shift", "rotation", "scale", "blur", "noise"):
        sizes = sorted(size for kind, size in rows if kind == name)
        assert rows[name, sizes[0]] < rows[name, sizes[-1]], name
        assert rows["none", 0.0] <= rows[name, sizes[-1]]


@pytest.mark.parametrize("times", [-1, 1, 2])
def test_thickness_changes_a_bar_by_a_pixel_on_each_side(times: int):
    image = torch.zeros(1, 1, 28, 28)
    image[:, :, 10:13, 5:20] = 1
    changed = corruptions._thicken(times)(image)
    assert changed[0, 0, :, 12].sum() == 3 + 2 * times
    assert changed[0, 0, 11].sum() == 15 + 2 * times


def test_a_shift_goes_in_all_eight_directions():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 14, 14] = 1
    places = {
        tuple((change(image)[0, 0] > 0.5).nonzero()[0].tolist()) for change in corruptions.CORRUPTIONS["shift"][1][3]
    }
    assert places == {(14 + y, 14 + x) for y in (-3, 0, 3) for x in (-3, 0, 3)} - {(14, 14)}


def test_the_same_noise_comes_each_time_and_leaves_the_programs_own_draws_alone(finished: Path, rows: dict):
    digits, network = load_mnist5k(), load_model(finished)
    state = torch.random.get_rng_state()
    again = robustness([network], digits.test_images[:200], digits.test_labels[:200])
    assert {(row["corruption"], row["size"]): row["errors"] for row in again} == rows
    assert torch.equal(torch.random.get_rng_state(), state)


def test_robustness_is_printed_and_drawn(finished: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    few = {"shift": corruptions.CORRUPTIONS["shift"], "inversion": corruptions.CORRUPTIONS["inversion"]}
    monkeypatch.setattr(corruptions, "CORRUPTIONS", few)  # all of them on 1,000 images would take too long here
    arguments = ["evaluate", str(finished), "--data", "mnist5k", "--robustness", "--save", str(tmp_path)]
    assert main(arguments) == 0
    assert "inversion" in capsys.readouterr().out
    assert (tmp_path / "plots" / "robustness.png").is_file()
    assert len(json.loads((tmp_path / "summary.json").read_text())["robustness"]) == 7


# ---- the weights that the package carries


@needs_full_mnist
@pytest.mark.parametrize("errors", [35, pytest.param(30, marks=pytest.mark.xfail(strict=True, reason="33 errors now"))])
def test_the_packages_own_weights_reach_what_they_say(errors: int, capsys: pytest.CaptureFixture[str]):
    found = evaluate(capsys, "evaluate", "--data-dir", os.environ["DIGITS_DATA_DIR"])
    assert found["test/ece"] <= 0.003
    assert found["test/errors"] <= errors
