"""What happened, and can I trust it? One page, `report.html`, made of the files of a deployment and of nothing else.

Of what `prune` found, `prune.html` or, for several budgets, `front.html` shows what a budget costs in accuracy.

The page is self-contained: no script, no request, light and dark by the reader's setting, and it prints.
"""

from __future__ import annotations

import os
from pathlib import Path

from spear_deploy.report.folder import read_folder
from spear_deploy.report.page import front_page, page
from spear_deploy.report.pruning_page import PAGES, found_in
from spear_deploy.util.files import replace_file

__all__ = ["write_report"]

NAME = "report.html"


def write_report(folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a folder, whole or not at all, and return its path.

    Args:
        folder: where `deploy`, `demo` or `prune` wrote.
        out: the file; unless given `report.html` in the folder, or what `prune` calls its page.

    Raises:
        FileError: the folder holds no finished deployment and no front, or its files are damaged.
    """
    pruned = found_in(Path(folder))
    text = page(read_folder(folder)) if pruned is None else front_page(Path(folder))
    path = Path(folder) / (NAME if pruned is None else PAGES[pruned]) if out is None else Path(out)
    with replace_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path
