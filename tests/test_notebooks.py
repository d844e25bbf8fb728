"""Notebooks: each runs from top to bottom, its assertions hold, and it is shipped with the outputs of a run."""

import re

import nbformat
import pytest

from tests.support.framework_environments import NotInstalled, install
from tests.support.notebooks import NOTEBOOKS, read_text, run_notebook

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
LINES = (
    r"accuracy in \w+: \d+\.\d% of 360 test images",
    r"[\d,]+ outputs compared, 0 differ",
    r"accuracy, (dense|pruned|quantised): \d+\.\d%",
    r"SynOps per inference: [\d,]+ -> [\d,]+",
    r"verdict: fits",
    r"one more epoch in \w+: \d+\.\d%",
)
"""What every notebook prints."""


def read(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def check_outputs(notebook):
    """Check that a notebook prints its results, and that the accuracies are those of networks that learnt and were kept."""
    text = read_text(notebook)
    for line in LINES:
        assert re.search(line, text), line
    accuracies = [float(value) for value in re.findall(r"(?:accuracy[^:\n]*|one more epoch[^:\n]*): (\d+\.\d)%", text)]
    assert len(accuracies) == 6 and min(accuracies) > 75, text
    before, after = (int(value.replace(",", "")) for value in re.search(r"SynOps per inference: (\S+) -> (\S+)", text).groups())
    assert 0 < after < 0.7 * before


def test_there_is_a_notebook_for_each_framework_with_a_tutorial():
    assert NAMES == ["from_sinabs", "from_snntorch", "from_spikingjelly"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_shipped_with_the_outputs_of_one_run(name):
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    check_outputs(notebook)
    text = read_text(notebook)
    assert "/tmp/" not in text and "site-packages" not in text and "Warning" not in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_of_snntorch_runs(tmp_path):
    pytest.importorskip("snntorch", exc_type=ImportError)
    check_outputs(run_notebook(NOTEBOOKS / "from_snntorch.ipynb", tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "from_snntorch"])
def test_the_notebook_of_a_framework_runs_in_its_environment(name, tmp_path):
    try:
        _, environment = install(name.removeprefix("from_"), tmp_path)
    except NotInstalled as error:
        pytest.skip(f"{name.removeprefix('from_')} cannot be installed here: {error}")
    (work := tmp_path / "work").mkdir()
    check_outputs(run_notebook(NOTEBOOKS / f"{name}.ipynb", work, environment))
