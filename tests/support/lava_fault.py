"""Python interpreter with a fault for the Lava worker.

`SPEAR_LAVA_PYTHON` names a script that runs this file.

SPEAR_TEST_FAULT says where and what, `model:step:what`, with the name of a Lava process model. The time of the fault is
written to the file SPEAR_TEST_STAMP.
"""

import os
import runpy
import signal
import sys
import time
from pathlib import Path


def stamp():
    target = Path(os.environ["SPEAR_TEST_STAMP"])
    aside = target.with_suffix(f".{os.getpid()}")  # several processes may fail, and be killed while they write
    aside.write_text(str(time.time()))
    aside.rename(target)


def go_wrong(what):
    stamp()
    if what == "raise":
        raise ValueError("this synapse is broken")
    if what == "raise unknown":
        raise type("Strange", (Exception,), {})("no class of this name can be imported elsewhere")
    if what == "exit":
        os._exit(3)
    if what in ("sys.exit", "sys.exit 0"):
        sys.exit(4 if what == "sys.exit" else 0)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    while what == "spin":
        pass
    time.sleep(3600 if what == "sleep" else 0)


def main():
    model, step, what = os.environ["SPEAR_TEST_FAULT"].split(":")
    worker = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(worker).parent))
    from guard import make_lava_importable

    make_lava_importable()
    from lava.magma.core.model.py.model import PyLoihiProcessModel

    if step == "init":
        build = PyLoihiProcessModel.__init__

        def start(self, *args, **kwargs):
            build(self, *args, **kwargs)
            if type(self).__name__ == model:
                go_wrong(what)

        PyLoihiProcessModel.__init__ = start
    else:
        spike = PyLoihiProcessModel._spike

        def run(self):
            if type(self).__name__ == model and self.time_step + 1 == int(step):
                go_wrong(what)
            spike(self)

        PyLoihiProcessModel._spike = run
    runpy.run_path(worker, run_name="__main__")


if __name__ == "__main__":
    main()
