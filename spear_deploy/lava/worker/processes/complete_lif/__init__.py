"""Loihi's neuron with all resets and a refractory time."""
