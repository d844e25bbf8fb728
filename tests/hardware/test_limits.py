"""Capacities beyond all chips, and words where a number belongs, are refused with a sentence."""

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import ProfileError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain

NETWORK = chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=IF())], input_shape=(4,))


@pytest.mark.parametrize("key", ["core.neurons", "core.synapse_memory", "core.axons_in"])
def test_a_capacity_beyond_exact_sums_is_refused(key):
    with pytest.raises(ProfileError, match=r"1e\+25 given, a capacity is at most 9007199254740992; 'unlimited' is without"):
        override_facts(load_profile("loihi2"), {key: "1e25"})
    assert check(NETWORK, override_facts(load_profile("loihi2"), {key: str(1 << 53)})).cores_used == 1


def test_a_capacity_beyond_floating_point_is_refused_too():
    with pytest.raises(ProfileError, match=r"key 'core.neurons': 9{57}\.\.\. given, a capacity is at most 9007199254740992"):
        override_facts(load_profile("loihi2"), {"core.neurons": "9" * 400})


@pytest.mark.parametrize("key", ["word_bits", "cells_per_weight", "block_synapses"])
def test_an_unlimited_width_is_refused_where_the_format_counts_in_it(key):
    chip = {"word_bits": "loihi2", "cells_per_weight": "brainscales2", "block_synapses": "loihi1"}[key]
    message = rf"profile '{chip}, as changed', key 'synapse_memory.{key}': 'unlimited' given, but the format '\w+' needs a number"
    with pytest.raises(ProfileError, match=f"{message}; correct it"):
        override_facts(load_profile(chip), {f"synapse_memory.{key}": "unlimited"})


@pytest.mark.parametrize("table", ["{}", "{0: 3}", "{-1: 3, 4: 5}"])
def test_a_table_without_counts_is_refused(table):
    with pytest.raises(ProfileError, match=r"key 'timing.barrier_ns_by_tiles': \{.*\} given, expected counts of at least 1, "):
        override_facts(load_profile("loihi1"), {"timing.barrier_ns_by_tiles": table})


def test_a_weight_of_more_cells_than_any_crossbar_gives_it_is_refused():
    with pytest.raises(ProfileError, match=r"cells_per_weight'?: 9007199254740992 given, a weight takes at most 1024 cells"):
        override_facts(load_profile("brainscales2"), {"synapse_memory.cells_per_weight": 2**53})
    assert override_facts(load_profile("brainscales2"), {"synapse_memory.cells_per_weight": 1024})
