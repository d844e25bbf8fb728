"""Whether numba keeps the machine code that it makes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

IS_KEPT = not sys.dont_write_bytecode and os.access(Path(__file__).parent, os.W_OK)
"""Whether Python may write beside the modules: elsewhere numba would take a folder in the user's cache."""
