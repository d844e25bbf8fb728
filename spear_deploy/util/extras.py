"""Optional packages, and the extra that installs each."""

from __future__ import annotations

from importlib.util import find_spec

from spear_deploy.errors import MissingPackageError

EXTRAS = {
    "torch": "train", "norse": "train", "stable_baselines3": "train", "gymnasium": "train", "optuna": "train", "cmaes": "train",
    "sklearn": "data", "onnx": "onnx", "onnxruntime": "onnx", "lava": "lava", "scipy": "lava",
}  # fmt: skip
"""Extra of `pyproject.toml` by module; what is not here belongs to the core."""
PACKAGES = {"sklearn": "scikit-learn", "yaml": "PyYAML", "stable_baselines3": "stable-baselines3", "lava": "lava-nc"}
"""Distributions that are called other than their module."""


def require_packages(*modules: str, user: str) -> None:
    """Check that optional packages are installed, without importing them.

    Args:
        modules: keys of `EXTRAS`.
        user: what needs them, the subject of the message.

    Raises:
        MissingPackageError: the first that is missing, with the extra that installs it.
    """
    for module in modules:
        if not _is_installed(module):
            raise MissingPackageError(f"{user} needs the {describe_missing(module)}", name=module)


def describe_missing(module: str) -> str:
    """Return the second half of a sentence about a missing package.

    >>> describe_missing("onnx")
    "package 'onnx', which is not installed; `pip install 'spear-deploy[onnx]'` adds it ('.[onnx]' in a clone)"
    """
    package = PACKAGES.get(module, module)
    extra = EXTRAS.get(module)
    if extra is None:
        return f"package '{package}', which is not installed; install it, or spear-deploy again, which needs it"
    note = "; docs/install.md has the line for pip on Python 3.11 and later" if extra == "lava" else ""
    return (
        f"package '{package}', which is not installed; `pip install 'spear-deploy[{extra}]'` adds it ('.[{extra}]' in a clone"
        f"{note})"
    )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a finder refuses the module, or it is a stub without a spec
        return False
