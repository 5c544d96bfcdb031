"""Uploading to the Hugging Face hub; the hub's client is replaced, as no test goes to the net."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from digits.__main__ import main
from digits.errors import DigitsError
from digits.exchange import hub


class Client:
    """Stands in for the hub's client, which would go to the net; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []

    def create_repo(self, repo_id: str, **options: object) -> str:
        self.asked.append((repo_id, options))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, **options: object) -> None:
        self.asked.append(("upload", options))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setattr(hub, "HfApi", lambda: client)
    return client


def test_push_makes_the_repository_and_uploads_the_runs_model(
    finished: Path, client: Client, capsys: pytest.CaptureFixture[str]
):
    assert main(["push", "me/digits", "--model", str(finished)]) == 0
    (repository, made), (_, uploaded) = client.asked
    assert (repository, made["exist_ok"], made["private"]) == ("me/digits", True, False)
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/digits", finished / "model")
    assert capsys.readouterr().out == "https://huggingface.co/me/digits\n"


def test_a_dry_run_names_the_files_and_asks_the_hub_nothing(
    finished: Path, client: Client, capsys: pytest.CaptureFixture[str]
):
    assert main(["push", "me/digits", "--model", str(finished), "--dry-run"]) == 0
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} >= {"model.safetensors", "README.md"}
    assert client.asked == []


def test_a_model_without_a_card_is_not_uploaded(tmp_path: Path, client: Client):
    with pytest.raises(DigitsError, match=r"model\.safetensors is missing"):
        hub.push(tmp_path, "me/digits")
    assert client.asked == []


def test_a_refusal_of_the_hub_is_one_line(
    finished: Path, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(*_: object, **__: object) -> None:
        raise HfHubHTTPError("403 Forbidden: no rights for this name\nmore about it", response=Mock())

    monkeypatch.setattr(client, "create_repo", refuse)
    assert main(["push", "me/digits", "--model", str(finished)]) == 1
    assert capsys.readouterr().err == "digits: me/digits: not uploaded: 403 Forbidden: no rights for this name\n"


def test_a_hub_that_cannot_be_reached_is_one_line(
    finished: Path, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object, **__: object) -> None:
        raise HTTPError("Name or service not known")  # the parent of what the hub's client raises without a network

    monkeypatch.setattr(client, "create_repo", fail)
    assert main(["push", "me/digits", "--model", str(finished)]) == 1
    assert capsys.readouterr().err == "digits: me/digits: not uploaded: Name or service not known\n"


def test_a_name_that_the_hub_would_refuse_is_refused_at_once(finished: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["push", "a b/c", "--model", str(finished), "--dry-run"]) == 1
    assert capsys.readouterr().err == "digits: a b/c: no name of a repository on the hub, such as owner/name\n"


@pytest.mark.parametrize("command", ["push", "export"])
def test_a_model_without_its_option_is_one_line_that_names_the_option(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([command, "me/digits", "runs/default"]) == 2
    said = "digits: runs/default: one argument too many; if it is the model, name it by --model runs/default\n"
    assert capsys.readouterr().err == said
