"""The one import of onnxruntime, with its telemetry switched off."""

from __future__ import annotations

import os
from typing import Any


def runtime() -> Any:
    """Return the module onnxruntime; nothing in this package imports it otherwise.

    Its telemetry client starts with the import: it writes a device id and an event store into the user's cache folder and
    looks up its host. Only this variable, set before the import, keeps it from starting; child processes inherit it.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime
