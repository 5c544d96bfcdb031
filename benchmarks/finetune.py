"""A hundred pictures of other people's digits, and `experiment=finetune`: how much better the rest of them is read.

    DIGITS_HANDWRITING=FILE.npz python benchmarks/finetune.py [--json] [OVERRIDES]

FILE.npz has `images`, uint8 (N, 16, 16) with 255 = ink, as Semeion's 1,593, and `labels` (N,). Ten of each digit are
drawn by seed 0, enlarged as pictures of black on white, and trained on as a user would; the others are read by the
weights before and after, and so are MNIST's test images, and 1,000 drawn letters, signs and scribbles, of which it
counts how many are taken for a digit at 90 % or more. A picture counts as an error unless exactly its digit is read.
Nothing that is trained here is kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EACH = 10  # pictures of each digit to train on
ROOT = Path(__file__).resolve().parent.parent
OUTLIERS = 1_000
OUTLIERS_SEED = 1_000  # another than any training's here
SURE = 0.9


def write_pictures(source: Path, folder: Path) -> tuple[Path, Path]:
    """The folders of the pictures to train on and of the others, each with a sub-folder for each digit."""
    with np.load(source) as content:
        images, labels = content["images"], content["labels"]
    random = np.random.default_rng(0)
    chosen = {int(i) for digit in range(10) for i in random.choice(np.flatnonzero(labels == digit), EACH, False)}
    own, rest = folder / "own", folder / "rest"
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        picture = np.kron(np.pad(255 - image, 3, constant_values=255), np.ones((8, 8), np.uint8))
        path = (own if number in chosen else rest) / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return own, rest


def figures(model: str | None, rest: Path, data_dir: Path) -> dict[str, Any]:
    """What ``model``, None for the package's own, makes of all the images."""
    from digits.data.mnist import load_mnist
    from digits.data.outliers import draw_outliers
    from digits.evaluation.evaluate import evaluate
    from digits.evaluation.inference import ensemble_probabilities
    from digits.exchange.model_folder import load_model

    models = [] if model is None else [model]
    read, mnist = evaluate(models, str(rest), data_dir), evaluate(models, "mnist", data_dir)
    outliers, _ = draw_outliers(OUTLIERS, load_mnist(data_dir).test_images, OUTLIERS_SEED)
    answered = ensemble_probabilities([load_model(model)], outliers).max(1).values >= SURE
    return {
        "pictures": read["test_images"],
        "misread": read["test/errors"],
        "of these none found": read["test/none_found"],
        "MNIST errors": mnist["test/errors"],
        "MNIST loss": round(mnist["test/nll"], 4),
        "MNIST calibration error": round(mnist["test/ece"], 4),
        "temperature": mnist["temperature"],
        "no digit, answered": int(answered.sum()),
    }


def main() -> None:
    """Train, read, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("overrides", nargs="*", help="for train.py")
    options = parser.parse_args()
    if not (source := os.environ.get("DIGITS_HANDWRITING")):
        sys.exit("finetune.py: DIGITS_HANDWRITING names no file; see --help")
    data_dir = Path(os.environ.get("DIGITS_DATA_DIR") or "~/.cache/deepdigits").expanduser()
    with tempfile.TemporaryDirectory() as folder:
        own, rest = write_pictures(Path(source), Path(folder))
        run = Path(folder) / "run"
        command = [sys.executable, ROOT / "train.py", "experiment=finetune", f"data.pictures={own}"]
        start = time.perf_counter()
        subprocess.run([*command, f"hydra.run.dir={run}", *options.overrides], check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - start
        before, after = (figures(model, rest, data_dir) for model in (None, str(run)))
    ratio = after["misread"] / before["misread"]
    if options.json:
        print(json.dumps({"seconds": round(seconds, 1), "ratio": ratio, "before": before, "after": after}, indent=2))
        return
    print(f"{'':24}{'before':>10}{'after':>10}")
    for name in before:
        print(f"{name:24}{before[name]:>10}{after[name]:>10}")
    print(f"misread, after by before: {ratio:.2f}; training, from the command to its end: {seconds:.0f} s")


if __name__ == "__main__":
    main()
