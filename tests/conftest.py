"""What several tests need: the configuration as the command line gives it, and marks for what is not everywhere."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the workers share the cores; torch reads this when it is imported
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from digits.settings import command_line
from digits.settings.schema import Config
from digits.training.run import train

ROOT = Path(__file__).resolve().parent.parent

SMALL = ("data=mnist5k", "data.batch_size=16", "recipe.ema_decay=0.99", "trainer.accelerator=cpu")
FINISHED = (*SMALL, "data.batch_size=64", "trainer.max_epochs=3", "recipe.learning_rate=2e-3")

needs_full_mnist = pytest.mark.skipif(
    not os.environ.get("DIGITS_DATA_DIR"), reason="DIGITS_DATA_DIR names no folder with the full MNIST"
)
needs_xla = pytest.mark.skipif(
    importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed; it goes with torch 2.9 only"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, or one worker would be left with them at the end."""
    longest = ("test_spmd", "test_run", "test_tpu_check", "test_many_steps", "test_evaluate", "test_signals")
    items.sort(key=lambda item: longest.index(item.path.stem) if item.path.stem in longest else len(longest))


def configure(*overrides: str) -> Config:
    """The configuration that `python train.py OVERRIDES` would run."""
    return command_line.configure([*overrides])


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real small training on the embedded digits."""
    run_dir = tmp_path_factory.mktemp("run")
    train(configure(*FINISHED), run_dir)
    return run_dir


@pytest.fixture
def train_py(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python train.py` as a user does, from a folder that is not the project's."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ROOT / "train.py", *arguments],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
