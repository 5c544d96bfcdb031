"""`digits tpu-check`: the real steps, compiled by the TPU's own compiler."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import pytest
from conftest import needs_xla

from digits.__main__ import main
from digits.training.tpu_check import COMPILER


def installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch_xla", "jax", "libtpu"))


needs_compiler = pytest.mark.skipif(not installed(), reason="the extra tpu-check is not installed")


@pytest.fixture(scope="module")
def check() -> dict:
    """The default recipe at 256 images a chip."""
    command = [sys.executable, "-m", "digits", "tpu-check", "--json", "data.batch_size=2048"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@needs_compiler
def test_both_steps_compile_for_eight_chips(check: dict):
    assert (check["topology"], check["chips"], check["global_batch"]) == ("v5e:2x4", 8, 2048)
    assert check["precision"] == "bf16-mixed"
    assert check["estimated_cycles"] > check["test"]["estimated_cycles"] > 0


@needs_compiler
def test_the_training_is_compiled_as_it_runs_and_as_a_single_step(check: dict):
    single = check["single_step"]
    assert (check["steps_per_execution"], single["steps_per_execution"]) == (50, 1)
    assert check["all_reduces"] == single["all_reduces"]
    assert check["estimated_cycles"] == pytest.approx(single["estimated_cycles"], rel=0.1)


@needs_compiler
def test_the_hosts_time_is_measured_and_says_how_long_the_chips_would_wait(check: dict):
    single = check["single_step"]
    assert check["host_milliseconds"] < single["host_milliseconds"] / 20
    for found in (check, single):
        device, host = found["estimated_milliseconds"], found["host_milliseconds"]
        assert found["busy_share"] == pytest.approx(device / max(device, host))


@needs_compiler
def test_no_operator_falls_back_to_the_host(check: dict):
    assert check["host_fallbacks"] == []


@needs_compiler
def test_the_gradients_are_summed_over_the_chips(check: dict):
    assert check["all_reduces"] >= 1


@needs_compiler
def test_the_figures_agree_with_each_other(check: dict):
    seconds = check["estimated_cycles"] / check["clock_hz"]
    assert check["estimated_images_per_second"] == pytest.approx(2048 / seconds)
    assert 0 < check["arithmetic_share"] < 1
    assert 0 < check["memory_bytes_per_chip"] < 16e9


@pytest.mark.parametrize("topology", ["v5e", "v9:2x4", "2x4", "v5e:2x", "v5e:0x4"])
def test_an_unknown_topology_is_refused_with_what_is_allowed(topology: str, capsys: pytest.CaptureFixture[str]):
    assert main(["tpu-check", "--topology", topology]) == 2
    assert "v5e or v6e, a colon and a shape such as 2x4" in capsys.readouterr().err


def test_a_batch_that_the_chips_cannot_share_equally_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["tpu-check", "data.batch_size=100"]) == 2
    assert "multiples of 8" in capsys.readouterr().err


def test_a_mistyped_override_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["tpu-check", "data.batch_sise=64"]) == 2
    assert "did you mean data.batch_size" in capsys.readouterr().err


@needs_xla
def test_without_the_compiler_one_line_says_what_to_install(monkeypatch, capsys: pytest.CaptureFixture[str]):
    real = importlib.metadata.version

    def version(package: str) -> str:  # stands in for an environment without the extra
        if package in COMPILER:
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["tpu-check"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "pip install -e '.[tpu-check]'" in error


def test_the_compiler_is_pinned_in_the_extra_as_it_is_checked():
    required = [line for line in importlib.metadata.requires("deepdigits") or [] if "tpu-check" in line]
    pinned = {line.split(";")[0].strip() for line in required}
    assert {f"{name}=={version}" for name, version in COMPILER.items()} <= pinned  # and the torch that goes with them
