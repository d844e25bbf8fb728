"""Optional packages, and the extra that installs each."""

from __future__ import annotations

from importlib.util import find_spec

from spear_deploy.errors import MissingPackageError

EXTRAS = {
    "torch": "train", "norse": "train", "stable_baselines3": "train", "gymnasium": "train", "optuna": "train", "cmaes": "train",
    "sklearn": "data", "onnx": "onnx", "onnxruntime": "onnx", "lava": "lava", "scipy": "lava", "numba": "fast",
    "cloudpickle": "workers", "joblib": "workers", "ray": "ray", "submitit": "slurm",
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
        MissingPackageError: names all that are missing, and the extras that install them.
    """
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        raise MissingPackageError(f"{user} needs the {describe_missing(*missing)}", name=missing[0])


def describe_missing(*modules: str) -> str:
    """Return the second half of a sentence about missing packages.

    >>> describe_missing("onnx")
    "package 'onnx', which is not installed; `pip install 'spear-deploy[onnx]'` adds it ('.[onnx]' in a clone)"
    >>> describe_missing("torch", "norse", "onnx")  # doctest: +ELLIPSIS
    "packages 'torch', 'norse' and 'onnx', which are not installed; `pip install 'spear-deploy[train,onnx]'` adds them ('.[...
    """
    packages = [f"'{PACKAGES.get(module, module)}'" for module in modules]
    *others, last = packages
    names, are, them = (f"packages {', '.join(others)} and {last}", "are", "them") if others else (f"package {last}", "is", "it")
    if any(module not in EXTRAS for module in modules):
        return f"{names}, which {are} not installed; install {them}, or spear-deploy again, which needs {them}"
    extras = ",".join(dict.fromkeys(EXTRAS[module] for module in modules))
    note = "; docs/install.md has the line for pip on Python 3.11 and later" if "lava" in extras else ""
    return (
        f"{names}, which {are} not installed; `pip install 'spear-deploy[{extras}]'` adds {them} ('.[{extras}]' in a clone{note})"
    )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a finder refuses the module, or it is a stub without a spec
        return False
