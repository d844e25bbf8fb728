"""What happened, and can I trust it? One page, `report.html`, made of the files of a deployment and of nothing else.

The page is self-contained: no script, no request, light and dark by the reader's setting, and it prints.
"""

from __future__ import annotations

import os
from pathlib import Path

from spear_deploy.files import written_aside
from spear_deploy.report.folder import read_folder
from spear_deploy.report.page import page

__all__ = ["write_report"]

NAME = "report.html"


def write_report(folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a deployment, whole or not at all, and return its path.

    Args:
        folder: where `deploy` or `demo` wrote.
        out: the file; `report.html` in the folder unless given.

    Raises:
        FileError: the folder holds no finished deployment, or its files are damaged.
    """
    text = page(read_folder(folder))
    path = Path(folder) / NAME if out is None else Path(out)
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path
