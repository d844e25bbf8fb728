"""Which number of cores does no placement go below? For the ratio that says how good a placement is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spear_deploy.fan import synapses_into
from spear_deploy.placement.cores import UNLIMITED, Core
from spear_deploy.placement.placing import may_share
from spear_deploy.populations import Population
from spear_deploy.profile_schema import HardwareProfile


def lower_bound(found: Sequence[Population], weight_bits: Mapping[str, int], profile: HardwareProfile) -> int:
    """Return a number of cores that no split goes below: by neurons, and by the bits of weights that nothing shares.

    Where layers may share a core their needs add up before they are rounded to cores: ceil(Σ need / limit), the largest over
    the resources; elsewhere each layer takes at least one core: Σ max(1, ceil(need / limit)). A chip that cuts no layer needs a
    core for each, or one of each role where they share them.
    """
    if profile.packing.rule.value == "whole":
        own = any(group.role.value == "readout" for group in profile.core_groups)
        kinds = {own and population.output for population in found}
        return len(kinds if profile.packing.share_cores.value else found)
    groups = range(len(profile.core_groups))
    cores = [Core(profile, weight_bits, group) for group in groups] or [Core(profile, weight_bits)]
    neurons, words = max(core.neurons for core in cores), max(core.memory for core in cores)
    if profile.synapse_memory.scope.value == "chip":
        words = UNLIMITED
    needs = [(population.neurons, _least_words(population, cores[0])) for population in found]
    if bool(profile.packing.share_cores.value) or may_share(profile):
        most = min(core.limits["layers"] for core in cores)
        total = (sum(n for n, _ in needs), sum(w for _, w in needs), len(needs))
        return max(_ceil(total[0], neurons), _ceil(total[1], words), _ceil(total[2], most))
    return sum(max(1, _ceil(n, neurons), _ceil(w, words)) for n, w in needs)


def _least_words(population: Population, core: Core) -> int:
    """Return the words that the synapses of a layer take at least, however it is cut."""
    memory = core.profile.synapse_memory
    if memory.format.value in ("crossbar", "word_per_weight"):
        return int(synapses_into(population).sum(dtype=np.int64)) if not population.is_input_layer else 0
    if memory.format.value not in ("list_words", "list_blocks"):
        return 0
    default = int(core.profile.weights.default_bits.value or 0)
    bits = sum(
        p.channels * p.outputs * core.weight_bits.get(p.layer, default) for p in population.projections if p.kind == "dense"
    )
    return _ceil(bits, memory.word_bits.most or 1)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
