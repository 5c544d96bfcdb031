"""Uploads trained networks to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from digits.errors import DigitsError
from digits.exchange.card import pictures_in
from digits.exchange.model_folder import model_folder
from digits.files import check_regular, member

NEEDED = ("model.safetensors", "config.json", "README.md")  # of a model on the hub
MAX_FILE_BYTES = 4_000_000_000


def check_name(repository: str) -> None:
    """Raise DigitsError if ``repository`` is not a valid name of a repository."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise DigitsError(f"{repository}: no name of a repository on the hub, such as owner/name") from error


def files_to_push(model: str | Path | None) -> tuple[Path, list[Path]]:
    """The model folder of ``model`` and the files of a model that are in it; whatever else lies there stays here.

    Args:
        model: a run's folder or a model's folder; None for the package's own model.

    Raises:
        DigitsError: a file that a model on the hub needs is missing, or one is a symbolic link or no regular file.
    """
    folder = model_folder(model)
    for name in NEEDED:
        if not (folder / name).exists():
            raise DigitsError(f"{folder}: {name} is missing; name a run's folder, or the model/ in it")
    names = [*NEEDED, *(["summary.json"] if (folder / "summary.json").exists() else [])]
    files = [member(folder, name) for name in names]
    for file in files:
        check_regular(file, MAX_FILE_BYTES)
    return folder, sorted(file.relative_to(folder) for file in [*files, *pictures_in(folder / "plots")])


def push(model: str | Path | None, repository: str, private: bool = False) -> str:
    """Upload ``model`` to ``repository`` ("owner/name"), which is created if it does not exist; returns its address.

    Raises:
        DigitsError: the model is incomplete, or the hub refuses it or cannot be reached.
    """
    folder, files = files_to_push(model)
    api = HfApi()
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        names = [file.as_posix() for file in files]  # as patterns they match themselves only
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="DeepDigits", allow_patterns=names)
    except LocalTokenNotFoundError as error:
        raise DigitsError("the hub does not know you: run `hf auth login`, or set HF_TOKEN") from error
    except (HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DigitsError(f"{repository}: not uploaded: {reason}") from error
    return str(url)
