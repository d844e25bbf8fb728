"""Imports of plotting libraries without their cache of fonts.

Norse and Lava import matplotlib, which lists all fonts in the user's cache as it is imported. Nothing is plotted here, so a home
without matplotlib's folders stays without them: the list goes to a temporary folder. Where the user has it already, it is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spear_deploy.util.temporary_folder import open_temporary_folder

VARIABLE = "MPLCONFIGDIR"
"""Names the folder that matplotlib takes for its settings and its cache."""
PLACES = (("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config"))
"""Folders of caches and settings, and where they are without the variable."""


@contextmanager
def keep_fonts_out_of_home() -> Iterator[None]:
    """Let what is imported in the block write no list of fonts into the user's home; child processes included."""
    if VARIABLE in os.environ or _has_folder():
        yield
        return
    with open_temporary_folder("fonts") as folder:
        os.environ[VARIABLE] = str(folder)
        try:
            yield
        finally:
            os.environ.pop(VARIABLE, None)


def _has_folder() -> bool:
    """Return whether the user has settings or a cache of matplotlib."""
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home
        return False
    places = [Path(os.environ.get(name) or home / folder) for name, folder in PLACES]
    return any((place / "matplotlib").exists() for place in places) or (home / ".matplotlib").exists()
