"""`trainer.precision=auto` on a CPU: float32 or bfloat16, whichever trains and evaluates faster on this machine."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch.plugins.precision import Precision

from digits.network.fast.precision import Speed, keep_speed, known_speed, native_bfloat16
from digits.settings.schema import Config
from digits.training.classifier import DigitClassifier

log = logging.getLogger("digits")
MOST_IMAGES = 64  # in a measured training step
EVALUATED_IMAGES = 250  # in a measured evaluation
SECONDS = 1.0  # for each of the two
LEAST_ROUNDS = 2  # however long they take, after one to warm up


class CPUPrecision(Precision):
    """float32 ("32-true") or autocast to bfloat16 ("bf16-mixed"), in training and in evaluation each its own.

    It is kept in the checkpoint, so that a run goes on as it began.
    """

    def __init__(self, training: Any, evaluation: str) -> None:
        self.precision = training
        self.evaluation = evaluation

    def forward_context(self) -> contextlib.AbstractContextManager[Any]:
        """In training."""
        return _autocast(self.precision)

    @contextlib.contextmanager
    def val_step_context(self) -> Iterator[None]:
        """In validation."""
        with _autocast(self.evaluation):
            yield

    @contextlib.contextmanager
    def test_step_context(self) -> Iterator[None]:
        """In the test."""
        with _autocast(self.evaluation):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Both, for the checkpoint."""
        return {"training": self.precision, "evaluation": self.evaluation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as the checkpoint has it."""
        if state_dict != self.state_dict():
            log.info("precision=auto: going on as it began: %s in training, %s in evaluation", *state_dict.values())
        self.precision, self.evaluation = state_dict["training"], state_dict["evaluation"]


def choose_precision(config: Config) -> CPUPrecision:
    """The faster precision for the network of ``config`` on this CPU; measured if it was not, which takes 3 seconds.

    Where the processor has no arithmetic for bfloat16, it is float32 without being measured.
    """
    if not native_bfloat16("cpu"):
        return CPUPrecision("32-true", "32-true")
    network = config.model.name
    speed = known_speed(network)
    if speed is None:
        speed = measure_speed(config)
        keep_speed(network, speed)
    log.info("precision=auto: training in %s; evaluation in %s", _reason(speed.training), _reason(speed.evaluation))
    return CPUPrecision(*("bf16-mixed" if factor > 1 else "32-true" for factor in (speed.training, speed.evaluation)))


def measure_speed(config: Config) -> Speed:
    """How many times as fast bfloat16 is as float32, by steps of the training, and evaluations, of ``config``."""
    recipe = config.recipe.model_dump() | {"schedule": "constant"}  # which needs no trainer
    classifier = DigitClassifier(config.model.model_dump(), recipe)
    optimizer: Any = classifier.configure_optimizers()
    batch_size = min(config.data.batch_size, MOST_IMAGES)
    images = torch.randint(256, (EVALUATED_IMAGES, 28, 28), dtype=torch.uint8)
    labels = torch.arange(EVALUATED_IMAGES) % 10
    batch = {"image": images[:batch_size], "label": labels[:batch_size]}

    def train() -> None:
        classifier.training_step(batch, 0).backward()
        optimizer.step()
        optimizer.zero_grad()

    def evaluate() -> None:
        with torch.inference_mode():
            classifier.validation_step({"image": images, "label": labels}, 0)

    training = _factor(train)
    classifier.eval()
    return Speed(training, _factor(evaluate))


def _factor(step: Callable[[], None]) -> float:
    """How many times as fast ``step`` is in bfloat16 as in float32, by the fastest of some rounds of both in turns."""
    seconds: dict[str, list[float]] = {"32-true": [], "bf16-mixed": []}
    start = time.perf_counter()
    while len(seconds["32-true"]) <= LEAST_ROUNDS or time.perf_counter() - start < SECONDS:
        for precision, measured in seconds.items():
            with _autocast(precision):
                begun = time.perf_counter()
                step()
                measured.append(time.perf_counter() - begun)
    float32, bfloat16 = (min(measured[1:]) for measured in seconds.values())
    return round(float32 / bfloat16, 3)


def _autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else contextlib.nullcontext()


def _reason(factor: float) -> str:
    if factor > 1:
        return f"bfloat16: {factor:.1f} times float32 here"
    return f"float32: {1 / factor:.1f} times bfloat16 here"
