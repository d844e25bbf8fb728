"""The other side of the fence: what runs in the worker process, and the only code that imports lava.

Nothing here is imported by the toolkit. `main.py` is run by path, in an interpreter that needs numpy, scipy and lava-nc only.
"""
