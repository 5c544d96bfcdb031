"""`digits tpu-check`: the project's own steps, compiled for a TPU by the TPU's own compiler, without a TPU.

Processes of their own do it: with torch_xla one measures what a step costs the host and one records the steps, and
others compile these with libtpu. Neither library is imported here.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digits.errors import ConfigError, DigitsError
from digits.settings.schema import Config
from digits.settings.targets import config_dirs
from digits.xla import require_torch_xla, steps_per_execution
from digits.xla.compiler import CHIPS, SHARDS_TRACED

COMPILER = {"jax": "0.7.1", "jaxlib": "0.7.1", "libtpu": "0.0.21.1"}  # what torch-xla 2.9.0 is built against
SLICES = ("2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # of v5e and v6e: 8 to 256 chips


def tpu_check(
    config: Config, topology: str, scale: bool = False, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Compile what ``config`` describes for ``topology``, such as "v5e:2x4": the training, and the test step.

    The training is compiled as the program of many steps that runs, and as a single step.

    With ``scale`` also for the slices of 8 to 256 chips of the same kind, at the same batch a chip. ``say`` is told
    what is being done, a line each.

    Returns:
        For each topology what the compiler says of a train step, of many in one program, under "single_step" of one
        that is a program of its own, and under "test" of the test step. Cycles, images a second and the arithmetic's
        share are estimates of the compiler. The host's milliseconds are measured on this machine; the busy share is how
        much of the time the chips then compute.

    Raises:
        DigitsError: the compiler is not installed, or one of the two processes failed.
        ConfigError: the topology is unknown, or its chips cannot share the batch equally.
    """
    kind, chips = _parse(topology)
    batch = config.data.batch_size
    if batch % chips:
        raise ConfigError(
            f"data.batch_size={batch}: the {chips} chips of {topology} share it equally; "
            f"allowed are multiples of {chips}"
        )
    _require_compiler()
    slices = [f"{kind}:{shape}" for shape in SLICES] if scale else [topology]
    settings = config.model_dump()
    settings["steps_per_execution"] = steps_per_execution(config, "TPU")
    silent = {"accelerator": "tpu", "enable_checkpointing": False, "enable_progress_bar": False}
    settings["trainer"] |= silent | {"fast_dev_run": False}
    settings |= {"logger": {"_target_": None}, "callbacks": []}
    say("measuring what a step costs the host")
    host = _trace(["digits.training.host_time"], settings)
    return [_check(settings, name, batch // chips * _parse(name)[1], host, say) for name in slices]


def _check(
    settings: dict[str, Any], topology: str, batch: int, host: dict[str, float], say: Callable[[str], None]
) -> dict[str, Any]:
    steps = settings["steps_per_execution"]
    programs = {"train": 1, "test": 1} | ({"many": steps} if steps > 1 else {})
    with tempfile.TemporaryDirectory() as folder:
        say(f"recording the steps at a global batch of {batch:,}")
        traced = _trace(["digits.training.record_steps", folder, str(batch)], settings)
        found = {}
        for name, count in programs.items():
            step = "test" if name == "test" else "train"
            say(f"compiling {f'{count} {step} steps' if count > 1 else f'the {step} step'} for {topology}")
            program = str(Path(folder) / f"{name}.hlo.pb")
            flops = traced["flops"][step] * batch
            found[name] = _run(["digits.xla.compiler", program, topology, str(flops), str(count)])
            chips, milliseconds = found[name].pop("chips"), found[name]["estimated_milliseconds"]
            found[name]["estimated_images_per_second"] = batch / milliseconds * 1e3
            if step == "train":
                found[name] |= {"steps_per_execution": count, "host_milliseconds": host[str(count)]}
                found[name]["busy_share"] = milliseconds / max(milliseconds, host[str(count)])
    return {
        "topology": topology,
        "chips": chips,
        "global_batch": batch,
        "precision": traced["precision"],
        "host_fallbacks": traced["host_fallbacks"],
        "clock_hz": CHIPS[topology.split(":")[0]][0],
        **found["many" if steps > 1 else "train"],
        "single_step": found["train"],
        "test": found["test"],
    }


def _trace(module: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """What a module prints that uses torch_xla, without a TPU, and with the user's own networks."""
    environment = os.environ | {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(SHARDS_TRACED)}
    return _run([*module, *map(str, config_dirs()[1:])], environment, json.dumps(settings))


def _parse(topology: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\w+):([1-9]\d*)x([1-9]\d*)", topology)
    if not match or match[1] not in CHIPS:
        raise ConfigError(f"--topology {topology}: allowed is {' or '.join(CHIPS)}, a colon and a shape such as 2x4")
    return match[1], int(match[2]) * int(match[3])


def _require_compiler() -> None:
    require_torch_xla("tpu-check", "tpu-check")
    for package, version in COMPILER.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found != version:
            raise DigitsError(f"tpu-check: needs {package} {version}, here: {found}; pip install -e '.[tpu-check]'")


def _run(module: list[str], environment: dict[str, str] | None = None, stdin: str = "") -> dict[str, Any]:
    command = [sys.executable, "-m", *module]
    result = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        reason = lines[-1].removeprefix("digits.errors.DigitsError: ")
        raise DigitsError(f"tpu-check: {module[0]} failed: {reason}")
    return json.loads(result.stdout.splitlines()[-1])
