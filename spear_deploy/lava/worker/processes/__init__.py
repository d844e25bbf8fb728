"""Our Lava processes, one in each folder.

Lava's compiler executes every module that lies beside a process class, several times for each process. So no other module may
lie there.
"""
