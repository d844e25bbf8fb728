"""Integer networks on Lava's CPU backend, with the simulator's spikes.

    run ─► plan ─► batches ─► program ─► worker_process ═╪═► worker/main ─► Lava's processes, and ours (worker/processes)
     │      │                    │              (files)  ╪        │
     │   linear_maps, formats,   │                       ╪     worker/guard
     │   convolution, schedule   │                       ╪
     └─► single_process ─────────┘                       ╪

    plan             populations, the connections into each, and their start steps; refuses what Lava cannot do exactly
    linear_maps      one integer matrix between two populations
    formats          weights, biases, decays in the numbers that Lava's models leave unchanged
    convolution      weights and limits of Lava's Conv
    schedule         every connection takes a step: offsets and delays
    batches          samples of an input in passes
    builder          rows and arrays of one pass
    single_process   the whole network as one process: the fast model
    program          what the worker runs, and what it costs
    worker_process   starts the worker, waits, cleans up

Left of the double line is numpy. Right of it, in a separate process, is the only code that imports lava.
"""
