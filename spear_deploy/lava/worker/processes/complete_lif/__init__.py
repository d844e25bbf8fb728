"""The neuron that Lava's LIF is not quite."""
