"""Lava processes of our own, alone in a folder.

Lava's compiler executes every module that lies beside a process class, once per process. So nothing else may live here.
"""
