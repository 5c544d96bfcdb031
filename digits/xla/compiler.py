"""The TPU's own compiler on a machine without a TPU: `python -m digits.xla.compiler PROGRAM.hlo.pb TOPOLOGY FLOPS`.

It runs in a process of its own, which imports jax and libtpu but neither torch nor torch_xla. Its figures are estimates
of the compiler; nothing runs on a TPU.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

# Per chip: clock in Hz and peak bfloat16 FLOP/s. Peaks are from cloud.google.com/tpu/docs (v5e, v6e); a clock is the
# peak divided by the FLOP that the chip's four matrix units do in a cycle (v5e: 4 of 128 x 128, v6e: 4 of 256 x 256).
CHIPS = {"v5e": (1.5e9, 197e12), "v6e": (1.75e9, 918e12)}
SHARDS_TRACED = 2  # number of devices that the programs are traced for
OPERATORS_WITHOUT_ESTIMATE = (  # the compiler gives no cycles for them, although they take time
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "gather",
    "scatter",
    "select-and-scatter",
    "rng-bit-generator",
)


def describe(executable: Any, topology: str, chips: int, flops: float) -> dict[str, Any]:
    """The compiler's estimates for a step whose products and convolutions take ``flops`` on all chips together."""
    clock, peak = CHIPS[topology.split(":")[0]]
    module = executable.hlo_modules()[0].to_string()
    entry = module[module.index("\nENTRY ") :]
    cycles = sum(map(int, re.findall(r'"estimated_cycles":"?(\d+)', entry)))
    without_estimate = [line for line in entry.splitlines() if "estimated_cycles" not in line]
    counts = {name: sum(f" {name}(" in line for line in without_estimate) for name in OPERATORS_WITHOUT_ESTIMATE}
    memory = executable.get_compiled_memory_stats()
    live = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", module)),
        "estimated_cycles": cycles,
        "not_estimated": {name: count for name, count in counts.items() if count},
        "estimated_milliseconds": cycles / clock * 1e3,
        "memory_bytes_per_chip": live + memory.temp_size_in_bytes,
        "arithmetic_share": flops / chips / peak / (cycles / clock),
    }


def devices_of(topology: str) -> list[Any]:
    """The chips of a topology such as "v5e:2x4", as jax devices; no TPU is needed."""
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "localhost"}
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8" if topology.startswith("v5e") else "v6e-8")
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)


def compile_program(program: bytes, devices: list[Any]) -> Any:
    """Compile an HLO proto for ``devices``, after resharding it from ``SHARDS_TRACED`` devices to all of them."""
    import numpy as np
    from jaxlib import _jax
    from jaxlib import xla_client as xc

    module = _jax.mlir.xla_computation_to_mlir_module(xc.XlaComputation(program))
    count = len(devices)
    traced = ",".join(map(str, range(SHARDS_TRACED)))
    sharding = re.compile(rf"devices=\[{SHARDS_TRACED}((?:,1)*)\](?:{traced}|<=\[{SHARDS_TRACED}\])(?!\d)")
    module, found = sharding.subn(rf"devices=[{count}\1]<=[{count}]", module)
    if not found:
        raise ValueError("the program is not sharded")
    options = xc.CompileOptions()
    options.num_replicas, options.num_partitions = 1, count
    build = options.executable_build_options
    build.num_replicas, build.num_partitions, build.use_spmd_partitioning = 1, count, True
    build.device_assignment = xc.DeviceAssignment.create(np.arange(count).reshape(1, count))
    return devices[0].client.compile(module.encode(), xc.DeviceList(tuple(devices)), options)


if __name__ == "__main__":
    path, name, flops = sys.argv[1:]
    chips = devices_of(name)
    executable = compile_program(Path(path).read_bytes(), chips)
    if "DIGITS_DUMP_HLO" in os.environ:
        Path(os.environ["DIGITS_DUMP_HLO"]).write_text(executable.hlo_modules()[0].to_string())
    print(json.dumps({"chips": len(chips)} | describe(executable, name, len(chips), float(flops))))
