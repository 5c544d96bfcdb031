"""The notebook, run from top to bottom with its trainings cut short, and as it is kept."""

import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "notebooks" / "deepdigits.ipynb"
MAX_BYTES = 600_000
SHORT = """
EPOCHS = SWEEP_EPOCHS = 1
SETTINGS += " recipe.ema_decay=0 trainer.limit_train_batches=2 trainer.limit_test_batches=1 trainer.accelerator=cpu"
SETTINGS += " data.batch_size=16"
SWEEP = "model.dense_dropout=0.5 model.l2=1e-3"
REHEARSE_TPU = False
RUNS = {runs!r}
"""


def outputs(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What each code cell has printed or, as text, returned."""
    texts = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
            texts[cell.id] = re.sub(r"\x1b\[[0-9;]*m", "", "".join(parts))
    return texts


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook after a run in which its parameters' cell is followed by other values, as papermill does it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    runs = str(tmp_path_factory.mktemp("notebook") / "runs")
    after = next(n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    notebook.cells.insert(after + 1, nbformat.v4.new_code_cell(SHORT.format(runs=runs), id="short"))
    notebook.cells.append(nbformat.v4.new_code_cell("print('torch_xla' in sys.modules)", id="imported"))
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    return NotebookClient(notebook, timeout=200, kernel_name="python3", resources=place).execute()


def test_it_runs_from_top_to_bottom(executed: nbformat.NotebookNode):
    texts = outputs(executed)
    assert "postcode.jpg" in texts["predict"]
    assert "2,621,898 weights" in texts["network"]
    assert "Run completed" in texts["fit"]
    assert "postcode.jpg" in texts["own"]
    assert "There is no TPU here" in texts["tpu-run"]
    assert not [
        line for text in texts.values() for line in text.splitlines() if re.match(r"(digits|train\.py): ", line)
    ]


def test_the_sweep_has_a_row_for_its_only_combination(executed: nbformat.NotebookNode):
    rows = [line for line in outputs(executed)["sweep-table"].splitlines() if re.match(r"\d ", line)]
    assert len(rows) == 1


def test_the_notebooks_own_process_never_imports_torch_xla(executed: nbformat.NotebookNode):
    assert outputs(executed)["imported"].strip() == "False"  # one process owns the TPU


def test_it_is_small_and_tells_nothing_of_the_machine_that_it_was_run_on():
    kept = NOTEBOOK.read_text(encoding="utf-8")
    assert len(kept.encode()) < MAX_BYTES
    for text in outputs(nbformat.read(NOTEBOOK, as_version=4)).values():
        assert not re.search(rf"{re.escape(str(Path.home()))}\b|/tmp/|/home/|site-packages", text)


def test_it_names_no_kernel_but_python():
    metadata = nbformat.read(NOTEBOOK, as_version=4).metadata
    assert metadata.kernelspec.name == "python3"
