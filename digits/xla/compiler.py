"""The TPU's own compiler on a machine without a TPU.

    python -m digits.xla.compiler PROGRAM.hlo.pb TOPOLOGY FLOPS STEPS

It runs in a process of its own, which imports jax and libtpu but neither torch nor torch_xla. Its figures are estimates
of the compiler; nothing runs on a TPU.
"""

import json
import os
import re
import sys
import time
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


def describe(executable: Any, topology: str, chips: int, flops: float, steps: int = 1) -> dict[str, Any]:
    """The compiler's estimates for a step whose products and convolutions take ``flops`` on all chips together.

    Of a program of many ``steps`` a step is the body of its loop, and what comes before and after the loop is shared
    out over all of them.
    """
    clock, peak = CHIPS[topology.split(":")[0]]
    module = executable.hlo_modules()[0].to_string()
    entry = step = module[module.index("\nENTRY ") :]
    cycles = _cycles(entry)
    if steps > 1:
        step = _loop_body(module, entry)
        cycles = round(_cycles(step) + cycles / steps)
    without_estimate = [line for line in step.splitlines() if "estimated_cycles" not in line]
    counts = {name: sum(f" {name}(" in line for line in without_estimate) for name in OPERATORS_WITHOUT_ESTIMATE}
    memory = executable.get_compiled_memory_stats()
    live = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", module if steps == 1 else step)),
        "estimated_cycles": cycles,
        "not_estimated": {name: count for name, count in counts.items() if count},
        "estimated_milliseconds": cycles / clock * 1e3,
        "memory_bytes_per_chip": live + memory.temp_size_in_bytes,
        "arithmetic_share": flops / chips / peak / (cycles / clock),
    }


def _cycles(computation: str) -> int:
    return sum(map(int, re.findall(r'"estimated_cycles":"?(\d+)', computation)))


def _loop_body(module: str, entry: str) -> str:
    """The computation that the loop in ``entry`` goes through, the one with most cycles if there are several loops."""
    names = re.findall(r" while\(.*?body=%?([\w.\-]+)", entry)
    starts = [re.search(rf"^%?{re.escape(name)} \(", module, re.MULTILINE) for name in names]
    bodies = [module[start.start() : module.index("\n}", start.start())] for start in starts if start]
    if not bodies:
        raise ValueError("the program has no loop")
    return max(bodies, key=_cycles)


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
    path, name, flops, steps = sys.argv[1:]
    chips = devices_of(name)
    start = time.perf_counter()
    executable = compile_program(Path(path).read_bytes(), chips)
    seconds = time.perf_counter() - start
    if "DIGITS_DUMP_HLO" in os.environ:
        dump = Path(os.environ["DIGITS_DUMP_HLO"])
        dump.with_stem(f"{dump.stem}_{Path(path).stem}").write_text(executable.hlo_modules()[0].to_string())
    found = describe(executable, name, len(chips), float(flops), int(steps))
    print(json.dumps({"chips": len(chips), "compile_seconds": round(seconds, 1)} | found))
