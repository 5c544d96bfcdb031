"""The Keras side of `vs_keras.py` and `time_to_accuracy.py`, which run it in its own virtual environment."""

import json
import os
import sys
import time
from typing import Any


class WorkerProtocol:
    """Lets a worker work only on command: a line on stdin starts its turn, a line of JSON on stdout reports the result.

    Everything else that is printed goes to stderr.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._start: float | None = None
        self._stop = 0.0

    def send(self, **message: Any) -> None:
        """Send one line of JSON."""
        print(json.dumps(message), file=self._out, flush=True)

    def wait_for_turn(self) -> None:
        """Block until it is this side's turn; end the process if there is none any more."""
        if not sys.stdin.readline():
            os._exit(0)  # as a training run is under way, of which nothing has to be saved
        self._start = None

    def batch_started(self) -> None:
        """Start the clock at the first batch, as TensorFlow sometimes idles for seconds before it."""
        self._start = self._start or time.perf_counter()

    def batch_finished(self) -> None:
        """Stop the clock, at each batch anew, so that the last one counts."""
        self._stop = time.perf_counter()

    def report(self, images: int) -> None:
        """Report the time from the first batch to the last."""
        assert self._start is not None
        self.send(images=images, seconds=self._stop - self._start)


def build_model(keras: Any) -> Any:
    """The original's network, compiled as in the original; ``keras`` is the imported module, on any backend."""
    layers = keras.layers

    def conv(filters: int, **options: Any) -> list[Any]:
        return [layers.Conv2D(filters, 3, activation="relu", **options), layers.BatchNormalization()]

    def dense(units: int) -> list[Any]:
        regularizer = keras.regularizers.l2(0.001)
        layer = layers.Dense(units, activation="relu", kernel_regularizer=regularizer)
        return [layer, layers.BatchNormalization(), layers.Dropout(0.5)]

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *conv(32),
            *conv(64),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            *conv(128),
            *conv(256, kernel_regularizer=keras.regularizers.l2(0.001)),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            *dense(512),
            *dense(256),
            layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
        metrics=["sparse_categorical_accuracy"],
        jit_compile="auto",
    )
    return model


def main() -> None:
    """Run the job that the only argument, a JSON object, describes."""
    job = json.loads(sys.argv[1])
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "until" in job:
        train_until(job)
    else:
        take_turns(job)


def take_turns(job: dict[str, Any]) -> None:
    """Train without end, in epochs of ``steps`` batches, each epoch and each evaluation only when told to."""
    protocol = WorkerProtocol()  # first, as it takes over the standard output
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    keras, model, x, y, test_x, test_y = prepare(job)

    class Clock(keras.callbacks.Callback):  # type: ignore[name-defined]
        """Waits for a turn before each epoch and each evaluation, and reports its time afterwards."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            protocol.wait_for_turn()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            protocol.batch_started()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            protocol.batch_finished()

        def on_test_begin(self, logs: Any = None) -> None:  # comes after the last batch of the epoch
            protocol.report(len(x))
            protocol.wait_for_turn()

        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            protocol.batch_started()

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            protocol.batch_finished()

        def on_test_end(self, logs: Any = None) -> None:
            protocol.report(len(test_x))

    x, y = x[: job["steps"] * job["batch_size"]], y[: job["steps"] * job["batch_size"]]
    protocol.send(parameters=model.count_params(), version=f"Keras {keras.__version__} on TensorFlow {tf.__version__}")
    model.fit(
        x,
        y,
        batch_size=job["batch_size"],
        epochs=1_000_000,
        validation_data=(test_x, test_y),
        validation_batch_size=job["batch_size"],
        callbacks=[Clock()],
        verbose=0,
    )


def train_until(job: dict[str, Any]) -> None:
    """Train as the original did to a test accuracy of ``until``, or for all ``epochs``; print a line per epoch."""
    keras, model, x, y, test_x, test_y = prepare(job)

    class PrintEpoch(keras.callbacks.Callback):  # type: ignore[name-defined]
        """Prints each epoch, and stops at the target."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            accuracy = logs["val_sparse_categorical_accuracy"]
            print(f"epoch {epoch + 1}/{job['epochs']} test {100 * accuracy:.2f}%", flush=True)
            model.stop_training = accuracy >= job["until"] - 1e-6

    model.fit(
        x,
        y,
        batch_size=512,
        epochs=job["epochs"],
        validation_data=(test_x, test_y),
        callbacks=[PrintEpoch()],
        verbose=0,
    )


def prepare(job: dict[str, Any]) -> tuple[Any, ...]:
    """The module keras, the model, and images (float32 in [0, 1]) and labels of both splits."""
    import keras
    import numpy as np

    if job["precision"] == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    digits = np.load(job["digits"])
    x, test_x = (digits[f"{part}_images"][..., None].astype(np.float32) / 255 for part in ("train", "test"))
    return keras, build_model(keras), x, digits["train_labels"], test_x, digits["test_labels"]


if __name__ == "__main__":
    main()
