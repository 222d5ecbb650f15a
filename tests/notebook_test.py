"""The notebook runs from its first cell to its last, and its figures are sane."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


@pytest.mark.slow
def test_the_notebook_runs():
    pytest.importorskip("espeakng_loader")
    notebook = nbformat.read(ROOT / "docs" / "first-steps.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    results = [
        output["data"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]
    # The picture, three players, and the shapes and figures.
    assert sum("image/png" in data for data in results) == 1
    assert sum("<audio" in data.get("text/html", "") for data in results) == 3
    figures = ast.literal_eval(results[-1]["text/plain"].replace("np.float64", ""))
    # The network was hardly trained; the shipped model separates even synthetic voices.
    assert figures["trained above"] > -3
    assert figures["shipped"] > 0
