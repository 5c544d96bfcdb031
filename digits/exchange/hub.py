"""Uploads trained networks to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from digits.errors import DigitsError
from digits.network import WEIGHTS


def check_name(repository: str) -> None:
    """Raise DigitsError if ``repository`` is not a valid name of a repository."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise DigitsError(f"{repository}: no name of a repository on the hub, such as owner/name") from error


def files_to_push(model: str | Path | None) -> tuple[Path, list[Path]]:
    """The model folder of ``model`` and the files in it.

    Args:
        model: a run's folder or a model's folder; None for the package's own model.

    Raises:
        DigitsError: a file that a model on the hub needs is missing.
    """
    folder = WEIGHTS if model is None else Path(model).expanduser()
    if (folder / "model").is_dir():
        folder = folder / "model"
    for name in ("model.safetensors", "config.json", "README.md"):
        if not (folder / name).is_file():
            raise DigitsError(f"{folder}: {name} is missing; name a run's folder, or the model/ in it")
    return folder, sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def push(model: str | Path | None, repository: str, private: bool = False) -> str:
    """Upload ``model`` to ``repository`` ("owner/name"), which is created if it does not exist; returns its address.

    Raises:
        DigitsError: the model is incomplete, or the hub refuses it or cannot be reached.
    """
    folder, _ = files_to_push(model)
    api = HfApi()
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="DeepDigits")
    except LocalTokenNotFoundError as error:
        raise DigitsError("the hub does not know you: run `hf auth login`, or set HF_TOKEN") from error
    except (HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DigitsError(f"{repository}: not uploaded: {reason}") from error
    return str(url)
