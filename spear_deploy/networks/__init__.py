"""Which trained networks ship with the toolkit, so that every command can be tried in seconds? By name, like a file.

digits      conv 16, conv 32, dense 10 with LIF neurons on scikit-learn's digits; made by `examples/train_digits.py`
"""

from importlib import resources

from spear_deploy.graph import SNNGraph

NAMES = ("digits",)


def shipped(name: str) -> SNNGraph:
    """Return a network by its name, one of `NAMES`."""
    from spear_deploy.interchange.snn_file import read_snn

    with resources.as_file(resources.files(__name__).joinpath(f"{name}.snn")) as path:
        return read_snn(path)
