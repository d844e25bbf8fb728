"""Lava processes of our own, each alone in a folder.

Lava's compiler executes every module that lies beside a process class, several times for each process. So nothing else may live
there.
"""
