"""Steps of `adapt`: trial plans, learning, measurement, results."""
