"""How the package is laid out: imports go one way, what is heavy is imported late, and the rooms stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "digits"
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_imports_keep_the_order_in_pyproject_toml():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", ["digits", "digits.__main__"])
def test_importing_the_package_imports_nothing_heavy(module: str):
    heavy = {"torch", "torch_xla", "jax", "gradio", "matplotlib", "lightning", "hydra"}
    code = f"import sys, {module}; print(*{heavy} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not result.stdout.split()


@pytest.mark.parametrize("name", ["DeepDigits", "Digit", "Reader", "load_model"])
def test_what_the_package_promises_is_there(name: str):
    import digits

    assert getattr(digits, name).__name__ == name
    assert name in digits.__all__


def test_a_name_that_the_package_has_not_is_an_attribute_error():
    import digits

    with pytest.raises(AttributeError, match="no attribute 'Writer'"):
        digits.Writer  # noqa: B018


def test_the_root_has_few_entries():
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 18, entries


@pytest.mark.parametrize("path", PACKAGE.rglob("__init__.py"), ids=lambda path: path.parent.name)
def test_every_package_says_what_it_is_for(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_is_long(path: Path):
    assert len(path.read_text("utf-8").splitlines()) <= 300
