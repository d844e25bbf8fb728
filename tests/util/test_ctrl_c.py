"""Ctrl-C waits for an import and for a compilation that it would break, and is raised behind them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from spear_deploy.util.ctrl_c import hold_ctrl_c

IMPORT = """
import signal, sys

class Stop:
    stopped = False

    def find_spec(self, name, path=None, target=None):
        if name == "numba.core.typing.templates" and not self.stopped:
            self.stopped = True
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Stop())
from spear_deploy.simulator import kernel_choice
{other}
for _ in range(2):
    try:
        print({call}.__name__)
    except KeyboardInterrupt:
        print("interrupted")
"""


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_waits_until_the_block_ends():
    done = []
    with pytest.raises(KeyboardInterrupt), hold_ctrl_c(), hold_ctrl_c():
        press_ctrl_c()
        done.append("work")
    assert done == ["work"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with hold_ctrl_c():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_is_ignored_stays_so_and_other_threads_change_nothing():
    seen = []

    def read_handler():
        with hold_ctrl_c():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=read_handler)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        read_handler()
        press_ctrl_c()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.default_int_handler, signal.SIG_IGN]


@pytest.mark.parametrize(
    ("other", "call", "module"),
    [
        ("", "kernel_choice._load_kernels()", "spear_deploy.simulator.compiled_kernels"),
        ("from spear_deploy.norse import fused_cells", "fused_cells._load_loops(1 << 40)", "spear_deploy.norse.compiled_cells"),
    ],
)
def test_an_import_of_numba_that_is_interrupted_is_complete(other, call, module):
    pytest.importorskip("numba")
    if other:
        pytest.importorskip("norse")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(other=other, call=call)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["interrupted", module], done.stderr


def test_a_compilation_that_is_interrupted_is_complete(monkeypatch):
    pytest.importorskip("numba")
    from spear_deploy.simulator import compiled_kernels

    monkeypatch.setattr(compiled_kernels, "IS_KEPT", False)  # a second run of the test would compile nothing

    def add_one(x):
        return x + 1

    kernel = compiled_kernels.njit(add_one)
    compile_function = kernel._compiler.compile

    def compile_late(*arguments):
        press_ctrl_c()
        return compile_function(*arguments)

    kernel._compiler.compile = compile_late
    with pytest.raises(KeyboardInterrupt):
        kernel(1)
    assert len(kernel.overloads) == 1 and kernel(1) == 2
