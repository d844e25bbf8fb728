"""Code of the worker process, the only code that imports lava.

`main.py` is run by path, in an interpreter that needs numpy, scipy and lava-nc only. The caller imports `guard` alone.
"""
