"""Training by what torch.compile makes is training by the plain network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from conftest import SMALL, configure
from torch import Tensor, nn

from digits.errors import ConfigError, DigitsError
from digits.network import BatchNorm, DeepDigits
from digits.network.fast import Forward, accelerate, compiled
from digits.training.setup import MIN_IMAGES_TO_COMPILE, compiles, images_to_train, set_up

needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")


def a_network(positive: bool) -> DeepDigits:
    """With normalisations whose factors are positive, or of both signs."""
    torch.manual_seed(0)
    network = DeepDigits(conv_dropout=0, dense_dropout=0).to(memory_format=torch.channels_last)
    for norm in (layer for layer in network.modules() if isinstance(layer, BatchNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        if positive:
            norm.weight.data.abs_().add_(0.1)
    return network


def trained_on(network: DeepDigits, precision: torch.dtype, compiled: bool = False) -> Tensor:
    """Logits (16, 10) in ``precision``; gradients and statistics are left in the network."""
    forward: Forward = accelerate(network, "cpu", training=True, compiled=True) if compiled else network
    generator = torch.Generator().manual_seed(1)
    images, probe = torch.rand(16, 1, 28, 28, generator=generator), torch.randn(16, 10, generator=generator)
    network.to(torch.promote_types(precision, torch.float32))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = forward(images)
    (logits * probe).sum().backward()
    return logits.detach()


@needs_a_compiler
@pytest.mark.parametrize("positive", [True, False])
def test_logits_gradients_and_statistics_are_those_of_the_plain_network(positive: bool):
    written, other = a_network(positive), a_network(positive)
    found, expected = trained_on(other, torch.float64, compiled=True), trained_on(written, torch.float64)
    torch.testing.assert_close(found, expected)
    for (name, one), two in zip(written.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-9, atol=1e-9 * float(one.grad.abs().max()), msg=name)
    for one, two in zip(written.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(two, one)


@needs_a_compiler
def test_in_bfloat16_it_is_as_near_to_float64_as_the_plain_network():
    exact, written, other = (a_network(positive=True) for _ in range(3))
    true = trained_on(exact, torch.float64)
    far = [(trained_on(n, torch.bfloat16, compiled=n is other) - true).norm() for n in (written, other)]
    assert far[1] < 2 * far[0]
    parameters = zip(exact.named_parameters(), written.parameters(), other.parameters(), strict=True)
    for (name, of_exact), of_written, of_other in parameters:
        assert of_exact.grad is not None and of_written.grad is not None and of_other.grad is not None
        assert (of_other.grad - of_exact.grad).norm() < 2 * (of_written.grad - of_exact.grad).norm(), name


def test_evaluation_does_not_compile(monkeypatch: pytest.MonkeyPatch):
    def never(network: DeepDigits, images: Tensor) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(compiled, "forward", never)  # to see that it is not called
    network, images = a_network(positive=True).eval(), torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(accelerate(network, "cpu", compiled=True)(images), network(images))


@needs_a_compiler
def test_a_run_may_ask_for_it(train_py: Callable[..., CompletedProcess[str]], tmp_path: Path):
    run = train_py("data=mnist5k", "trainer.fast_dev_run=true", "compile=true", "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["compiled"] is True


def test_without_a_compiler_who_asks_for_it_is_told_what_to_install(
    train_py: Callable[..., CompletedProcess[str]], tmp_path: Path
):
    nothing = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    run = train_py("data=mnist5k", "trainer.fast_dev_run=true", "compile=true", **nothing)
    assert run.returncode == 1
    assert run.stderr == (
        "train.py: compile=true: torch.compile does not work here; install g++ and python3-dev, or use compile=false\n"
    )


def test_on_another_device_than_a_cpu_it_cannot_be_asked_for():
    with pytest.raises(ConfigError, match="compile=true: goes with trainer.accelerator=cpu only, not with gpu"):
        compiles(configure("compile=true", "trainer.accelerator=gpu"), "gpu", 1)


@pytest.mark.parametrize(
    ("setting", "images", "compiler", "expected"),
    [
        ("auto", MIN_IMAGES_TO_COMPILE - 1, True, False),
        ("auto", MIN_IMAGES_TO_COMPILE, True, True),
        ("auto", MIN_IMAGES_TO_COMPILE, False, False),
        ("true", 1, True, True),
        ("false", MIN_IMAGES_TO_COMPILE, True, False),
    ],
)
def test_by_default_only_a_long_run_compiles_and_only_where_it_works(
    monkeypatch: pytest.MonkeyPatch, setting: str, images: int, compiler: bool, expected: bool
):
    monkeypatch.setattr(compiled, "available", lambda: compiler)  # this machine either has a compiler or has not
    assert compiles(configure(f"compile={setting}"), "cpu", images) is expected


@pytest.mark.parametrize(
    ("overrides", "images"),
    [
        (("trainer.max_epochs=3",), 3 * 3664),
        (("trainer.max_epochs=3", "trainer.limit_train_batches=2"), 3 * 2 * 16),
        (("trainer.max_epochs=3", "trainer.limit_train_batches=0.5"), 3 * 114 * 16),
        (("trainer.max_epochs=3", "trainer.max_steps=5"), 5 * 16),
        (("trainer.max_steps=5", "trainer.accumulate_grad_batches=2"), 10 * 16),
        (("trainer.fast_dev_run=true",), 16),
    ],
)
def test_the_images_of_a_run_are_those_of_its_steps(overrides: tuple[str, ...], images: int, tmp_path: Path):
    trainer, _, data, _ = set_up(configure(*SMALL, "compile=false", *overrides), tmp_path)
    assert images_to_train(trainer, data) == images


def test_asked_for_where_it_does_not_work_it_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiled, "available", lambda: False)  # as above
    with pytest.raises(DigitsError, match="compile=true: torch.compile does not work here"):
        compiles(configure("compile=true"), "cpu", 1)
