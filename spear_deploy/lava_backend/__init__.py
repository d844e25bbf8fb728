"""Does Lava give the same spikes?

    run ─► plan ─► passes ─► program ─► guarded_worker ═╪═► worker/main ─► Lava's processes
            │                                  (files)  ╪        │
          wiring, formats, skew                         ╪     worker/guard

    plan             which populations, what feeds each, when it acts; refuses by name what Lava cannot do exactly
    wiring           one integer matrix between two populations
    formats          weights, biases, decays in the numbers that Lava's models leave unchanged
    skew             every connection takes a step: offsets and delays
    passes           rows and arrays for one input
    program          what the worker runs, and what it costs
    guarded_worker   starts it, waits, sweeps

Left of the double line is numpy. Right of it, in a process of its own, is the only code that imports lava.
"""

from spear_deploy.lava_backend.run import Job, run_jobs, run_lava

__all__ = ["Job", "run_jobs", "run_lava"]
