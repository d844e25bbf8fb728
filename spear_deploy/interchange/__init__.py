"""Network files: .snn, NIR, netx and ONNX, read, written and certified."""

from spear_deploy.interchange.formats import (
    export,
    lint,
    load,
    reader_options,
    start_ahead,
    states_answer,
    states_steps,
    supported_modules,
)

__all__ = ["export", "lint", "load", "reader_options", "start_ahead", "states_answer", "states_steps", "supported_modules"]
