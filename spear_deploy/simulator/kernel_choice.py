"""Choice between numpy and compiled kernels, by the work of a process.

numba takes a second to import and some seconds to compile once after an installation. Both pay back in a process that simulates
much, and are no part of one that simulates little. Results are equal to the bit, so the choice shows in the time alone.
"""

from __future__ import annotations

from types import ModuleType

from spear_deploy.util.ctrl_c import hold_ctrl_c

PAYS_BACK = 1 << 27
"""Updates of neurons and sums that numpy has done before compiled kernels are loaded: about a second of its work."""

_done = 0
_loaded: list[ModuleType | None] = []


def find_kernels(work: int = 0) -> ModuleType | None:
    """Return the module of compiled kernels, or None where numpy does the work: too little so far, or no numba.

    Args:
        work: values that the caller is about to make.
    """
    global _done
    if _loaded:
        return _loaded[0]
    _done += work
    if _done < PAYS_BACK:
        return None
    _loaded.append(_load_kernels())
    return _loaded[0]


def _load_kernels() -> ModuleType | None:
    try:
        with hold_ctrl_c():
            from spear_deploy.simulator import compiled_kernels
    except Exception:  # numba is not installed, of another numpy, or finds no folder for its machine code
        return None
    return compiled_kernels
