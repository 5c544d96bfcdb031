"""Float32 beside bfloat16 on this CPU, in training and in evaluation, and what `trainer.precision=auto` chooses.

    python benchmarks/precision.py [--json] [OVERRIDES]

Images a second of short trainings of the default recipe, and of tests by what they leave, in turns; of three turns the
fastest. What auto chooses is measured anew. The last column is auto's choice beside the better of the two.
"""

import argparse
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

PRECISIONS = ("32-true", "bf16-mixed")
TURNS = 3
STEPS = 25  # of a training; the first ten warm up


def speeds(precision: str, overrides: list[str]) -> tuple[float, float]:
    """Images a second in training and in the test."""
    from digits.settings.command_line import configure
    from digits.training.setup import set_up

    limits = ["trainer.max_epochs=2", f"trainer.limit_train_batches={STEPS}", "trainer.limit_val_batches=0"]
    quiet = ["trainer.enable_checkpointing=false", "trainer.enable_progress_bar=false", "logger=none"]
    choice = ["trainer.accelerator=cpu", f"trainer.precision={precision}", "recipe.ema_decay=0"]
    config = configure([*choice, *limits, *quiet, *overrides])
    with tempfile.TemporaryDirectory() as folder:
        trainer, classifier, data, history = set_up(config, Path(folder))
        trainer.fit(classifier, data)
        start = time.perf_counter()
        trainer.test(classifier, data, verbose=False)
        return history.rows[-1]["images_per_second"], len(data.test) / (time.perf_counter() - start)


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    logging.getLogger("digits").setLevel(logging.WARNING)
    from digits.settings.command_line import configure
    from digits.training.precision import choose_precision

    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # where no earlier choice is
        start = time.perf_counter()
        chosen = choose_precision(configure(["trainer.accelerator=cpu", *options.overrides]))
        seconds = time.perf_counter() - start
    turns = {name: [speeds(name, options.overrides) for _ in range(TURNS)] for name in PRECISIONS}
    found: dict[str, Any] = {"seconds_to_choose": round(seconds, 2)}
    for index, (what, choice) in enumerate((("training", chosen.precision), ("evaluation", chosen.evaluation))):
        best = {name: round(max(turn[index] for turn in turns[name]), 1) for name in PRECISIONS}
        found[what] = best | {"auto": choice, "auto_beside_better": round(best[choice] / max(best.values()), 3)}
    if options.json:
        print(json.dumps(found))
        return
    print(f"chosen in {found['seconds_to_choose']} s; images a second:")
    for what in ("training", "evaluation"):
        row = found[what]
        print(f"{what:12} float32 {row['32-true']:>9,.1f}   bfloat16 {row['bf16-mixed']:>9,.1f}   ", end="")
        print(f"auto: {row['auto']}, {row['auto_beside_better']:.2f} of the better")


if __name__ == "__main__":
    main()
