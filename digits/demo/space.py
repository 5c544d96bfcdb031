"""Writes the demo as a Hugging Face Space: a folder that the hub can serve without changes."""

import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import digits
from digits.errors import DigitsError
from digits.exchange.model_folder import export, load_model
from digits.settings.targets import CONF

# The part of the package's requirements that reading needs, without those of training.
REQUIREMENTS = (
    "torch",
    "pydantic",
    "pyyaml",
    "huggingface-hub",
    "safetensors",
    "pillow",
    "opencv-python-headless",
    "rich",
)
README = """\
---
title: DeepDigits
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
license: apache-2.0
short_description: Reads handwritten digits, drawn or in a picture
---

# DeepDigits

Draw a digit or a number, or choose a picture of some; a small convolutional network reads them. Nothing that a visitor
draws or chooses is kept.

Made by `digits demo --space` of DeepDigits {digits}. `digits/` is that package, with its weights in `digits/weights/`.
"""
APP = """\
\"\"\"Serves the demo of DeepDigits; where, the Space says.\"\"\"

from digits.demo import serve

serve()
"""
# A Space runs on CPUs: torch from this index comes without the 2 GB of CUDA.
TORCH_CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
GIT_ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in ("safetensors", "png"))


def write_space(folder: Path, model: str | Path | None = None) -> None:
    """Write a complete Space to ``folder``, with ``model`` or else the package's own model in it.

    Raises:
        DigitsError: the folder is not empty, Gradio is not installed, or the model cannot be loaded or is of a
            network of the user's own.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DigitsError(f"{folder}: is not an empty folder; name another")
    try:
        gradio = version("gradio")
    except PackageNotFoundError as error:
        raise DigitsError("digits demo: Gradio is not installed; pip install -e '.[demo]'") from error
    network = load_model(model)  # fails before anything is written
    if not (CONF / "model" / f"{network.config_name}.yaml").is_file():
        raise DigitsError(f"--space: {network.config_name} is a network of your own, whose module a Space has not")
    package = Path(digits.__file__).parent
    shutil.copytree(package, folder / "digits", ignore=shutil.ignore_patterns("__pycache__", "conf"))
    shutil.copytree(CONF / "model", folder / "digits" / "conf" / "model")
    if model is not None:
        export(model, folder / "digits" / "weights")
    try:
        lines = requires("deepdigits") or []
    except PackageNotFoundError:  # running from a checkout without an installation
        lines = []
    requirements = {re.split(r"[^\w.-]", line)[0]: line for line in lines if "extra ==" not in line}
    (folder / "requirements.txt").write_text(
        "\n".join([TORCH_CPU_INDEX, *(requirements.get(name, name) for name in REQUIREMENTS), ""]), "utf-8"
    )
    (folder / "README.md").write_text(README.format(gradio=gradio, digits=digits.__version__), "utf-8")
    (folder / "app.py").write_text(APP, "utf-8")
    (folder / ".gitattributes").write_text(GIT_ATTRIBUTES, "utf-8")
