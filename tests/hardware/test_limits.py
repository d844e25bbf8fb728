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


def test_a_word_of_unlimited_width_is_refused():
    chip = override_facts(load_profile("loihi2"), {"synapse_memory.word_bits": "unlimited"})
    with pytest.raises(ProfileError, match="table 'synapse_memory': a width in bit is 'unlimited'; write a number, or null"):
        check(NETWORK, chip)
