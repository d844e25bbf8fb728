"""Does Lava give the same spikes?

    run ─► plan ─► passes ─► program ─► guarded_worker ═╪═► worker/main ─► Lava's processes, and ours (worker/processes)
     │      │                  │               (files)  ╪        │
     │    wiring, formats, skew                         ╪     worker/guard
     └───► whole ──────────────┘                        ╪

    plan             which populations, what feeds each, when it acts; refuses by name what Lava cannot do exactly
    wiring           one integer matrix between two populations
    formats          weights, biases, decays in the numbers that Lava's models leave unchanged
    skew             every connection takes a step: offsets and delays
    passes           rows and arrays for one input
    whole            the whole network as one process: the fast model
    program          what the worker runs, and what it costs
    guarded_worker   starts it, waits, sweeps

Left of the double line is numpy. Right of it, in a process of its own, is the only code that imports lava.
"""

from spear_deploy.lava.run import Job, LavaModel, run_jobs, run_lava

__all__ = ["Job", "LavaModel", "run_jobs", "run_lava"]
