"""Estimated cycles of a training step on a TPU, this project's beside Keras's on JAX, by the TPU's own compiler.

    python benchmarks/tpu_estimate.py

Both are the same network with the same loss (L2 included), Adam and metrics, in mixed bfloat16, without augmentation;
both are compiled in this run for the same topology and the same global batch. The figures are estimates of the
compiler for what it estimates; operators that it gives no cycles for are counted beside them. Nothing runs on a TPU.
It needs the extras dev and tpu-check.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from digits.errors import DigitsError
from digits.settings.command_line import configure
from digits.training.tpu_check import tpu_check

OURS = ["experiment=deepdigits", "trainer.accelerator=tpu", "data.test_each_epoch=false"]
POLICIES = {"bf16-mixed": "mixed_bfloat16", "32-true": "float32"}


def keras_step(topology: str, batch: int, precision: str) -> dict[str, Any]:
    """The compiler's estimates for Keras's own training step, with Keras on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    from digits.xla.compiler import describe, devices_of

    devices = devices_of(topology)  # before jax is imported, as it sets environment variables for libtpu
    import jax
    import keras
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from keras_worker import build_model

    keras.mixed_precision.set_global_policy(POLICIES[precision])
    model = build_model(keras)
    mesh = Mesh(np.array(devices), ("data",))
    x = jax.ShapeDtypeStruct((batch, 28, 28, 1), "float32", sharding=NamedSharding(mesh, PartitionSpec("data")))
    y = jax.ShapeDtypeStruct((batch,), "int32", sharding=NamedSharding(mesh, PartitionSpec("data")))
    model._symbolic_build(data_batch=(np.zeros((2, 28, 28, 1), "float32"), np.zeros((2,), "int32")))
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = [
        [jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=everywhere) for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    ]
    executable = jax.jit(model.train_step, donate_argnums=0).lower(tuple(state), (x, y)).compile()
    return describe(executable.runtime_executable(), topology, len(devices), 0.0)


def main() -> None:
    """Compile both training steps, print the estimates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:2x4", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=8192, help="the global batch (default: %(default)s)")
    parser.add_argument("--precision", choices=list(POLICIES), default="bf16-mixed", help="default: %(default)s")
    parser.add_argument("--keras-only", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.keras_only:
        print(json.dumps(keras_step(options.topology, options.batch, options.precision)))
        return
    try:
        config = configure([*OURS, f"data.batch_size={options.batch}", f"trainer.precision={options.precision}"])
        (check,) = tpu_check(config, options.topology, say=lambda line: print(line, file=sys.stderr))
    except DigitsError as error:
        sys.exit(f"tpu_estimate.py: {error}")
    ours = check["single_step"]  # as Keras's is
    print("compiling Keras's train step", file=sys.stderr)
    arguments = ["--topology", options.topology, "--batch", str(options.batch), "--precision", options.precision]
    command = [sys.executable, __file__, "--keras-only", *arguments]
    keras = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    print(f"A training step on {options.topology} at a global batch of {options.batch:,} in {options.precision},")
    print("by the estimate of the TPU's compiler (nothing was run on a TPU):\n")
    print(f"{'':12} {'cycles':>12} {'ms':>7} {'reduces':>8} {'MB a chip':>10}  not estimated")
    for name, found in (("DeepDigits", ours), ("Keras", keras)):
        memory = found["memory_bytes_per_chip"] / 1e6
        uncounted = ", ".join(f"{count} {operator}" for operator, count in found["not_estimated"].items())
        print(
            f"{name:12} {found['estimated_cycles']:>12,} {found['estimated_milliseconds']:>7.2f} "
            f"{found['all_reduces']:>8} {memory:>10,.0f}  {uncounted}"
        )
    print(f"\nratio of cycles: {ours['estimated_cycles'] / keras['estimated_cycles']:.3f}")


if __name__ == "__main__":
    main()
