"""All notebooks run on a pretended T4 (float16) and A100 (bfloat16), with the branches that they take on a GPU."""

import os
from itertools import product
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
INSTALL = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import pretend_gpu, torch
torch.set_num_threads(1)
pretend_gpu.install({{name!r}})
"""
CHECK = "assert device.type == 'cuda', device"
# The solutions take their branches for a GPU, with these numbers cut. Student copies run with CNNLESSON_TINY=1.
CUTS = {
    "01_data_splitting": {"100 if TINY else 1000": "100", "100 if TINY else 500": "100", "200 if TINY else 1000": "60"},
    "02_alexnet": {"len(images.train)\n": "60\n", "EPOCHS = 1 if TINY else 3": "EPOCHS = 1"},
    "03_resnet": {
        "20_000": "200",
        "EPOCHS = 1 if TINY else 4": "EPOCHS = 1",
        '3 if device.type == "cpu" else 6': "1",
        "(8, 20) if TINY else (8, 20, 56)": "(8, 20)",
        "(20, 56)": "(8, 14)",
    },
    "04_hyperparameters": {
        "20_000": "60",
        "EPOCHS = EPOCHS or 5": "EPOCHS = 1",
        "[0.1, 0.001] if TINY else [0.1, 0.001, 0.0001]": "[0.001]",
        "[16] if TINY else [16, 32, 64]": "[16]",
        "[0.0, 0.0005] if TINY else [0.0, 0.0005, 0.05]": "[0.0, 0.0005]",
    },
}


# `make test` runs two of these notebooks, `make test-gpu` all of them.
IN_MAKE_TEST = [("T4", "notebooks/solutions", name) for name in ("01_data_splitting", "03_resnet")]
OTHERS = sorted(set(product(("T4", "A100"), ("notebooks", "notebooks/solutions"), CUTS)) - set(IN_MAKE_TEST))


@pytest.mark.parametrize(
    ("gpu", "folder", "name"),
    [*IN_MAKE_TEST, *(pytest.param(*one, marks=pytest.mark.thorough) for one in OTHERS)],
)
def test_a_notebook_runs_on_a_gpu(tmp_path, monkeypatch, gpu, folder, name):
    notebook = nbformat.read(ROOT / folder / f"{name}.ipynb", as_version=4)
    if folder == "notebooks":
        monkeypatch.setenv("CNNLESSON_TINY", "1")
        monkeypatch.setenv("CNNLESSON_CHECKS", "untouched")
    else:
        monkeypatch.delenv("CNNLESSON_TINY", raising=False)
        monkeypatch.setenv("CNNLESSON_CHECKS", "strict")
        for old, new in CUTS[name].items():
            cells = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
            assert len(cells) == 1, f"{old} is in {len(cells)} cells"
            cells[0].source = cells[0].source.replace(old, new)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(INSTALL.format(name=gpu)))
    notebook.cells.append(nbformat.v4.new_code_cell(CHECK))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
