"""Writes the demo as a Hugging Face Space: a folder that the hub can serve without changes."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import digits
from digits.errors import DigitsError
from digits.exchange.model_folder import export, load_model
from digits.settings.targets import CONF

# The part of the package's requirements that reading needs, without those of training, and what serves the page.
REQUIREMENTS = (
    "gradio",
    "torch",
    "numpy",
    "pydantic",
    "pyyaml",
    "huggingface-hub",
    "safetensors",
    "pillow",
    "opencv-python-headless",
    "rich",
)
# https://huggingface.co/docs/hub/spaces-config-reference has the keys; `emoji` is demanded.
README = """\
---
title: DeepDigits
emoji: 🔢
colorFrom: blue
colorTo: indigo
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
license: apache-2.0
short_description: Reads handwritten digits, drawn or in a picture
pinned: false
suggested_hardware: cpu-basic
tags:
- mnist
- handwritten-digits
- image-classification
{models}datasets:
- ylecun/mnist
---

# DeepDigits

Draw a number, or show a picture of some; a small convolutional network reads the digits, and says how sure it is.
Nothing that a visitor draws or chooses is kept on the server.

Made by `digits demo --space` of DeepDigits {digits}. `digits/` is that package, with its weights in `digits/weights/`.
"""
APP = """\
\"\"\"Serves the demo of DeepDigits; where, the Space says.\"\"\"

from digits.demo import serve

if __name__ == "__main__":  # the processes that read pictures import this file too
    serve()
"""
# A Space runs on CPUs: torch from this index comes without the 2 GB of CUDA.
TORCH_CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
LARGE = ("safetensors", "png", "jpg")
GIT_ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)


def write_space(folder: Path, model: str | Path | None = None) -> None:
    """Write a complete Space to ``folder``, with ``model`` or else the package's own model in it.

    Raises:
        DigitsError: the folder is not empty, Gradio is not installed, or the model cannot be loaded or is of a
            network of the user's own.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DigitsError(f"{folder}: is not an empty folder; name another")
    versions = {name: _version(name) for name in REQUIREMENTS}
    network = load_model(model)  # fails before anything is written
    if not (CONF / "model" / f"{network.config_name}.yaml").is_file():
        raise DigitsError(f"--space: {network.config_name} is a network of your own, whose module a Space has not")
    package = Path(digits.__file__).parent
    shutil.copytree(package, folder / "digits", ignore=shutil.ignore_patterns("__pycache__", "conf"))
    shutil.copytree(CONF / "model", folder / "digits" / "conf" / "model")
    if model is not None:
        export(model, folder / "digits" / "weights")
    pinned = [f"{name}=={version}" for name, version in versions.items()]
    (folder / "requirements.txt").write_text("\n".join([TORCH_CPU_INDEX, *pinned, ""]), "utf-8")
    readme = README.format(
        gradio=versions["gradio"],
        python=".".join(platform.python_version_tuple()[:2]),
        models=_models(model),
        digits=digits.__version__,
    )
    (folder / "README.md").write_text(readme, "utf-8")
    (folder / "app.py").write_text(APP, "utf-8")
    (folder / ".gitattributes").write_text(GIT_ATTRIBUTES, "utf-8")


def _version(name: str) -> str:
    """The version that is installed, without what names its build, such as +cpu."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError as error:
        title = name.capitalize()
        raise DigitsError(f"digits demo: {title} is not installed; pip install -e '.[demo]'") from error


def _models(model: str | Path | None) -> str:
    """The key `models`, if the hub knows ``model``, which could be loaded; what is no path is a name on the hub."""
    own = "/".join(digits.HOMEPAGE.split("/")[-2:])
    if model is not None and Path(model).expanduser().exists():
        return ""
    return f"models:\n- {model or own}\n"
