"""Mutants that no test can tell from the program, or that are not worth telling, each with its reason.

A reason holds for the keys of the record that one of its patterns matches from beginning to end.
"""

from __future__ import annotations

import re

REASONS: dict[str, tuple[str, ...]] = {
    "the price is unknown only where nothing happened: it is multiplied by 0": (r"budget/energy\.py _price: 0\.0 → 1\.0",),
    "hops of both directions are known, or neither": (
        r"budget/energy\.py _hop_term: traffic\.hops_ew is None or traffic\.hops_ns is None → .* and .*",
    ),
    "steps that are not stated are 1 in any case (`or 1`)": (r"budget/check\.py resolve_activity: 0 → 1",),
    "the part decides which sets of axons are one object, which saves memory and time; their contents stay": (
        r"placement/splitting\.py _find_axons: (1 → 2 \([23]\)|p\.kind == .*|len\(box\) == .*|len\(p\.axes\) \+ 1 → .*)",
    ),
    "a network of which only the input seems to go back is cut once more, with the same cuts": (
        r"placement/splitting\.py SplitNetwork\._is_in_order: (-1 → 1|1 → 2)",
    ),
    "limits are raised to what one neuron needs, so that one fits": (r"placement/splitting\.py split_population: 1 → 2",),
    "a bound that rules candidates out early: what it lets pass is measured and refused": (
        r"placement/splitting\.py split_population: limits\['neurons'\] // copies → .*",
        r"placement/splitting\.py _largest_tile: min_tiles > best\[0\] → .*",
    ),
    "pieces inside a map read the same inputs": (r"placement/splitting\.py _fullest_tile: 2 → 3",),
    "the limit of a network far too large for its chip is an estimate": (r"placement/splitting\.py SplitNetwork\.__init__: .*",),
    "a bias takes no shift of graded spikes": (r"quantize/loihi\.py (_float_bias|_current_limit): 0 → 1",),
    "equal at a bound that no number of a network meets exactly": (
        r"quantize/loihi\.py _choose_candidate: .* > MAX_GRADED_SUM → .* >= MAX_GRADED_SUM",
        r"quantize/loihi\.py _scales_to_try: first \* factor <= .* → .*first \* factor < .*",
        r"quantize/speck\.py _report_threshold: .* > NOTABLE_CHANGE .* → .* >= NOTABLE_CHANGE .*",
        r"quantize/speck\.py _integers_at: .* < ROUNDING → .* <= ROUNDING",
        r"quantize/xylo_scales\.py _has_room: threshold <= .* → threshold < .*",
        r"quantize/network\.py _lower_without_overflow: .* < .* → .* <= .*",
        r"quantize/chip_scales\.py list_scales: largest \* factor <= others → .*",
        r"quantize/leaky_integrators\.py propose_reckon: .* > ReckonLIF\.FORMAT\.v\[1\] → .*",
        r"quantize/loihi\.py _report_saturation: .* > limit → .*",
        r"quantize/loihi\.py _scales_to_try: fits >= max\(least\) → .*",
        r"quantize/akida\.py _check_layer: .* > SAME_TAU → .*",
        r"quantize/xylo\.py _report_decays_and_start: off\[worst\] > 1e-06 → .*",
        r"quantize/fuse_weights\.py _compose_dense: inputs \* outputs > MAX_WEIGHTS → .* >= MAX_WEIGHTS",
        r"quantize/fuse_weights\.py fuse_weights: .* > max_layers → .* >= max_layers",
        r"quantize/rounding\.py stands_for: .* > SAME .* → .* >= SAME .*",
        r"quantize/scale_ranking\.py find_near_best: .* <= .* \+ above → .* < .* \+ above",
    ),
    "scales below half of the format leave larger errors, and are not chosen": (r"quantize/loihi\.py _scales_to_try: 2 → 3",),
    "zeros, of which one or two are the same grid": (
        r"quantize/loihi\.py _scales_to_try: 1 → 2 \(4\)",
        r"quantize/xylo_scales\.py _scales_to_try: 1 → 2 \(4\)",
    ),
    "a further shift at the same scale has coarser weights, and is not chosen": (
        r"quantize/loihi\.py _choose_candidate: candidate\.scale <= best\.scale → .*",
    ),
    "the scale keeps all values above the lower end: clipping changes none": (
        r"quantize/speck\.py _integers_at: 1 → 2 \([23]\)",
        r"quantize/speck\.py _integers_at: -max_weight - 1 → .*",
        r"quantize/xylo_scales\.py _integer_neuron: -MAX_STATE - 1 → .*",
    ),
    "the first of the scales is taken without data, however many there are": (
        r"quantize/speck\.py _choose_integers: 1 → 2",
        r"quantize/loihi\.py _scales_to_try: 1 → 2",
        r"quantize/rounded_weights\.py _choose_scale: 1 → 2",
    ),
    "of a weight of 0 any number below 0 says that it takes no axon": (r"quantize/integrate_and_fire\.py _report_axons: 1 → 2",),
    "a sparse matrix, read by rows, has the types of the array": (
        r"quantize/integrate_and_fire\.py _report_axons: write_out\(.*\) if .* else .* → .*",
    ),
    "no more than those of the sources, of which there is one at least": (
        r"quantize/integrate_and_fire\.py _report_axons: 0 → 1 \(3\)",
    ),
    "twice a scale holds all of its values, and is tried": (r"quantize/rounded_weights\.py _choose_scale: 2 → 3",),
    "a shift below 0 has no candidates": (r"quantize/chip_scales\.py choose_scales: 1 → 2 \(2\)",),
    "magnitudes of single spikes are not read there": (
        r"quantize/chip_scales\.py _drive: False → True",
        r"quantize/leaky_integrators\.py _largest_sum: False → True",
    ),
    "shifts that are tried where none is needed end at the first that is no better": (
        r"quantize/loihi\.py _choose_candidate: is_graded and float_run is not None → .*",
    ),
    "a readout has no threshold": (r"quantize/xylo_scales\.py _has_room: 0 → 1",),
    "both are 0: what is divided is 0 or not a number, and no finding either way": (
        r"quantize/xylo\.py _report_decays_and_start: .* \+ \(trained == stored\) → .* - \(trained == stored\)",
    ),
    "a threshold of 0 is refused at any scale": (r"quantize/integrate_and_fire\.py propose_catalyst: 1\.0 → 2\.0 \(2\)",),
    "all values of a channel are equal there": (r"quantize/weighted_inputs\.py NeuronInput\._spread_channels: 0 → 1 \(2\)",),
    "an event or none of a channel is neither negative nor too many": (r"quantize/network\.py _check_events: 0 → 1 \([23]\)",),
    "pairs are numbered, and differ with either sign of the second number": (
        r"quantize/palette\.py count_axons: .* \+ np\.concatenate\(kinds\) → .* - np\.concatenate\(kinds\)",
    ),
    "a threshold lies higher by less than a fifteenth of a whole number in any case": (
        r"quantize/rounding\.py module: (1 → 2 \(4\)|32 → 33)",
    ),
    "weights other than 0 are counted, whatever they are": (r"simulator/synops\.py _count_layer_by_rules: 1 → 2 \(3\)",),
    "a population without synapses: one zero or two are none": (r"placement/populations\.py add_counts: 1 → 2 \(5\)",),
    "one way more than may be, or two: both are too many": (r"placement/populations\.py _Ways\.find: 1 → 2",),
    "numpy's reshape takes any negative number for -1": (r"quantize/fold\.py fold_batchnorm\.fold: 1 → 2 \(3\)",),
    "samples that are alike, of which the first is read": (r"quantize/fuse_weights\.py _compose_dense: 1 → 2",),
    "an input of spikes takes no factor": (
        r"quantize/rounded_weights\.py lower: 1\.0 → 2\.0",
        r"quantize/rounding\.py (read_rounding|_pair_up): 1\.0 → 2\.0( \(2\))?",
    ),
    "a value that stands twice in a palette is the same palette": (r"quantize/rounding\.py _read_palette: 0 → 1",),
    "chips that hold no biases have neurons whose leak ends at the level: it adds 0 times this": (
        r"quantize/rounding\.py _store_neurons: 1 → 2 \(2\)",
    ),
    "an amount of work, not a result": (
        r"quantize/layer_error\.py module: 10000000000\.0 → .*",
        r"quantize/layer_error\.py run_float_network: 1 → 2 \(2\)",
        r"quantize/fuse_weights\.py module: (4 → 5|256 → 257|1 → 2|26 → 27|16 → 17)",
        r"placement/chip_populations\.py module: (1 → 2|21 → 22)",
        r"placement/core_axons\.py (module: (1 → 2 \(3\)|14 → 15|64 → 65)|AxonRows\._find_rows: len\(cores\) < .*)",
        r"placement/core_assignment\.py CoreBins\._find_core: axons_left >= item\.amount\('axons_in'\) → .* > .*",
        r"placement/projections\.py module: (1 << 24 → .*|1 → 2|24 → 25)",
        r"placement/projections\.py Projection\._count_dense_pairs: (1 → 2 \(3\)|MAX_PAIRS // .*)",
        r"placement/chip_populations\.py _merge: targets \* prod\(shape\) (> MAX_PAIRS )?→ .*",
        r"quantize/fuse_weights\.py _multiply: values\.max\(initial=0\) > FEW → .* >= FEW",
        r"quantize/even_neurons\.py _may_differ: .*",
        r"quantize/even_neurons\.py _group: size > 1 → size >= 1",
        r"quantize/scaled_weights\.py .*\.blocks: not .*",
        r"quantize/palette\.py module: 30 → 31",
        r"quantize/fuse_pools\.py module: (1 → 2|24 → 25)",
        r"quantize/fuse_pools\.py count_unsummed: (not _has_pools.*|_bound_synapses\(path\) <= 1 → .*)",
        r"budget/axon_room\.py module: (1 → 2|22 → 23)",
        r"budget/axon_room\.py find_weight_types: .* > MAX_PAIRS → .*",
        r"budget/axon_cuts\.py module: (1 → 2|19 → 20|24 → 25)",
        r"budget/axon_cuts\.py fit_axons: pairs > MAX_SEARCHED_PAIRS → .*",
        r"quantize/scale_ranking\.py module: (8192 → 8193|512 → 513)",
        r"quantize/scale_ranking\.py _rounding_errors: .* > FEW_VALUES → .* >= FEW_VALUES",
        r"adaptation/calibrate\.py _take_neurons: (0 → 1|1 → 2|size > MAX_KEPT → .*|int\(np\.prod.*)",
        r"data/dataset\.py module: 3 → 4",
    ),
    "where there is no limit, twice as many bytes as no machine has are as good": (
        r"util/memory\.py _(container|process)_free_bytes: (1 → 2|62 → 63)( \(2\))?",
    ),
    "a class that no sample has, and counts that are all twice as large, draw the same groups": (
        r"data/dataset\.py split_groups: 1 → 2( \(2\))?",
    ),
    "no spikes and one spike are stored as the same type": (r"data/dataset\.py check_values: 0 → 1",),
    "data of one class, or without samples, are refused either way": (r"data/dataset\.py split_at_random: (0 → 1|1 → 2 \(3\))",),
    "an array that may be written to, or is copied once more, has the same values": (
        r"quantize/fuse_weights\.py (_compose_dense|_multiply|compose_synapses): False → True( \(2\))?",
        r"simulator/sign_sums\.py (check_sums|make_weigher\.weigh_signs): False → True",
    ),
    "counts that hold no value of the input have 0 of them where they are split": (
        r"simulator/synops\.py split_arrivals: graph\[edge\.source\]\.neuron is None and .*",
    ),
    "a further round over columns without values adds 0": (r"quantize/fuse_weights\.py _multiply: 0 → 1 \([23]\)",),
    "a factor of all gains of a layer: only their ratios count": (
        r"quantize/even_neurons\.py (find_step_gain|_even_gains): 1\.0 → 2\.0( \(2\))?",
    ),
    "a layer of one axis has groups of two at most, never of a whole channel": (
        r"quantize/even_neurons\.py _Groups\.mean: len\(self\.shape\) > 1 → .*",
    ),
    "only pairs leave a rest, which is one neuron with either sign": (
        r"quantize/even_neurons\.py _Groups\._rows: -len\(flat\) → len\(flat\)",
    ),
    "integer neurons have no time step": (r"quantize/layer_error\.py measure_layer_error: 1\.0 → 2\.0",),
    "the estimate only rules scales out: those that are left are measured over all values": (
        r"quantize/scale_ranking\.py (_candidates|find_near_best): errors [+-] slack → .*",
        r"quantize/scale_ranking\.py _estimate_errors: 0 → 1 \(2\)",
        r"quantize/scale_ranking\.py rank_scales: count >= .* → count > .*",
    ),
    "rows of as many values as a palette has keep them either way": (
        r"quantize/palette\.py cluster_together: .* > count → .* >= count",
    ),
    "what a factor of 0 would give is not taken": (
        r"quantize/rounding\.py _read_times\.find_tau: (1\.0 → 2\.0|factor > 0 → factor >= 0)",
    ),
    "the one chip with types of axons states its palette, and one cell for a weight": (
        r"budget/axon_room\.py find_weight_types: 0 → 1",
        r"budget/axon_room\.py _count_cells: .*",
    ),
    "weights that are all 0 have no type, whichever number below the palette says so": (
        r"budget/axon_room\.py _find_types: (-1 → 1( \(2\))?|1 → 2( \(2\))?)",
    ),
    "a further type, which no weight has, counts nothing": (
        r"budget/axon_room\.py measure_rooms_by_type: (-1 → 1|1 → 2 \([34]\))",
    ),
    "a way without weights has one type, of which one or two are the same": (r"budget/axon_room\.py _find_types: 1 → 2 \(3\)",),
    "sums that only chips with a current of 16 bits look at": (r"quantize/speck\.py _choose_integers: False → True",),
    "a default that no population of a network takes": (
        r"placement/populations\.py Population: 0 → 1",
        r"placement/projections\.py SpikeSource: 0 → 1",
        r"placement/projections\.py Projection: (1 → 2 \(2\)|False → True \(6\)|True → False)",
    ),
    "a default that the way or the delay of a set of axons always replaces": (
        r"placement/axon_sets\.py AxonSet: 0 → 1( \(3\))?",
    ),
    "a default that dense weights alone take, which have no groups": (r"placement/projections\.py Projection: 1 → 2 \(3\)",),
    "how a projection is printed": (r"placement/projections\.py Projection: False → True",),
    "more numbers than there are columns: those of the columns are read": (
        r"placement/projections\.py Projection\.fan_in: self\.nonzero\.shape\[1\] // len\(reads\) → .*",
    ),
    "pairs of neurons are listed one by one, and are as many": (
        r"placement/projections\.py Projection\.passes_several: .* > 1 → .* >= 1",
        r"placement/synapse_memory\.py count_synapses: (1 → 2 \(3\)|projection\.kind != 'dense' → .*)",
        r"placement/synapse_memory\.py count_axons: 1 → 2 \(2\)",
    ),
    "ways that all have one delay have the same rows, whichever it is": (r"placement/core_needs\.py Core\.find_delay: 0 → 1",),
    "room of a table of rows: a longer or wider one holds zeros there, which are no sources": (
        r"placement/core_axons\.py AxonRows\.__init__: 0 → 1( \(2\))?",
        r"placement/core_axons\.py AxonRows\.add: (-1 → 1|1 → 2 \([45]\)|2 → 3|2 \* row → .*|8 → 9|width > .* → .*|height - .*)",
        r"placement/core_axons\.py _unite: 0 → 1",
    ),
    "a core without rows, and an item without a place, have any number below 0": (
        r"placement/core_axons\.py AxonRows\._find_rows: 1 → 2 \(2\)",
        r"placement/core_assignment\.py _fill_in_order: 1 → 2",
    ),
    "a byte has 256 values": (r"placement/core_axons\.py module: 256 → 257",),
    "no place in a row is no box": (r"placement/projections\.py split_row: start >= stop → start > stop",),
    "a limit that there is none of is not exceeded": (
        r"placement/core_assignment\.py _rank_overrun: limits\[name\] < UNLIMITED → .*",
    ),
    "of cores of which no limit is exceeded all have the same": (r"placement/core_assignment\.py _rank_overrun: 0\.0 → 1\.0",),
    "pieces of one kind that are taken for several are measured each": (
        r"placement/core_needs\.py Core\._kinds: b - a → b \+ a",
    ),
    "boxes that need the same are measured each": (
        r"placement/core_needs\.py Core\.differs_by_place: (1 < p\.groups < p\.outputs → 1 <= .*|any\(.* and .* → .* or .*)",
    ),
    "sources that are all read, marked one by one": (
        r"placement/axon_sets\.py find_axon_set: (count < p\.channels → count <= p\.channels|skips_zeros and count < .* → .*)",
    ),
    "neurons that are no map stand in a row, and have one axis": (r"placement/splitting\.py split_population: 0 → 1 \(2\)",),
    "shares that need the same are measured each, or two of them": (r"placement/splitting\.py _find_share\.fits_all: 1 → 2",),
    "a network sorts its layers by its edges; the place decides between layers side by side alone": (
        r"quantize/fuse_weights\.py _swap: (1 → 2|.*\.index\(second\) \+ 1 → .*)",
    ),
    "any numbers tell ways apart, and their sizes without the first neuron have the same order": (
        r"placement/splitting\.py number_ways: (1 → 2|0 → 1( \(2\))?|met\[key\] \+= 1 → .*)",
    ),
    "a layer alone has its own values": (r"budget/axon_room\.py count_values: len\(rows\) > 1 → len\(rows\) >= 1",),
    "a search that finds nothing ends sooner": (r"budget/axon_cuts\.py fit_axons: finer == cuts or .* → finer == cuts and .*",),
    "of a weight of 0 any number below 0 says that it has no type": (
        r"budget/axon_room\.py _number_types: 1 → 2( \(3\))?",
        r"budget/axon_room\.py _rank_weights: 1 → 2",
    ),
    "of one source the sums of the depths differ where their differences do": (
        r"budget/axon_room\.py _group_paths: .* - .* → .* \+ .*",
    ),
    "the largest stored weight is odd in steps: half of one more is a whole number with another": (
        r"quantize/loihi\.py _scales_to_try: 1 → 2 \(5\)",
    ),
    "before the first round no weight has a centre, and none has all weights at its second": (
        r"quantize/palette\.py _cluster: (-1 → 1|1 → 2 \(2\))",
    ),
    "the smallest scale rounds all weights to 0": (r"quantize/akida\.py _choose_scale: 1 → 2 \(3\)",),
    "a wider range of inputs holds those that are read": (r"placement/axes\.py Axis\.find_window: .*",),
    "a word or a cell holds a weight, however many bits it has": (r"placement/chip_populations\.py _merge: 0 → 1 \(3\)",),
    "chips with one weight from a neuron to another have no tables, which the extent of a kernel is for": (
        r"placement/chip_populations\.py _merge: 1 → 2 \(2\)",
    ),
    "the pairs of neurons that dense weights connect are as many as weights or listed one by one": (
        r"placement/chip_populations\.py _merge: first\.kind == 'dense' → first\.kind != 'dense' \(2\)",
    ),
    "zeros around a kernel take no row in any case: without them fewer places are looked at": (
        r"placement/chip_populations\.py find_chip_populations: .* == 'crossbar' → .*",
    ),
    "a small sparse matrix is written out by numpy's functions": (r"placement/chip_populations\.py _write_out: .*",),
    "ways whose delays differ alone have the same sources, in the same order": (
        r"placement/compose_projections\.py _merge: 0 → 1",
    ),
    "all groups together have the channels of the box, however they are cut": (
        r"placement/synapse_memory\.py list_blocks: projection\.outputs // projection\.groups → .*",
    ),
    "a group that there are none of": (
        r"placement/synapse_memory\.py _channels_by_group: (last - first > 1 → .* >= 1|last - first → last \+ first \(2\))",
    ),
    "the reach is the difference of two outputs": (
        r"placement/synapse_memory\.py count_axis_patterns: np\.arange\(axis\.inputs\)\[:, None\] \+ axis\.padding → .*",
        r"placement/synapse_memory\.py count_axis_patterns: np\.arange.* - np\.array.* → .* \+ np\.array.*",
    ),
    "a mixing count below 0 is as true as one above it": (
        r"placement/compose_projections\.py ProjectionBuilder\.add_dense: self\.mixing \+= 1 → .*",
    ),
    "a spread to both sides of 1 is the same with the other sign": (
        r"quantize/rounded_weights\.py draw_mismatch\.draw: 1 \+ .* → 1 - .*",
    ),
}
"""Patterns of mutants by reason."""


def explain_mutant(key: str) -> str | None:
    """Return why a mutant may survive, or None where no reason is known."""
    return next((reason for reason, patterns in REASONS.items() if any(re.fullmatch(p, key) for p in patterns)), None)
