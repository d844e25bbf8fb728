"""Notebooks of the examples, run from top to bottom with the outputs kept.

python -m tests.support.notebooks                    run all and write their outputs; the frameworks are installed for it
python -m tests.support.notebooks from_snntorch      run one
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.support.framework_environments import install

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


def run_notebook(path: Path, folder: Path, environment: Mapping[str, str] | None = None) -> Any:
    """Run a notebook in a folder, in a kernel of this Python, and return it with its outputs.

    Raises:
        CellExecutionError: a cell fails, with its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    variables = {**(os.environ if environment is None else environment), "PYTHONWARNINGS": "ignore"}
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=1200, startup_timeout=600, kernel_name="python3", resources=resources)
    return client.execute(env=variables)


def read_text(notebook: Any) -> str:
    """Return all that a notebook prints and shows as text."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


def strip(notebook: Any) -> Any:
    """Remove what differs between two runs of the same notebook: times, the versions of the kernel, and warnings.

    The text of an output that is shown as HTML goes too: it is the object's repr.
    """
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            if "text/html" in output.get("data", {}):
                output.data.pop("text/plain", None)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def main() -> None:
    """Run notebooks and write them with their outputs."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if len(sys.argv) > 1 and path.stem not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            _, environment = install(path.stem.removeprefix("from_"), Path(folder))
            work = Path(folder) / "work"
            work.mkdir()
            notebook = strip(run_notebook(path, work, environment))
        nbformat.write(notebook, path)
        print(f"{path.name}: {sum(len(cell.get('outputs', ())) for cell in notebook.cells)} outputs")


if __name__ == "__main__":
    main()
