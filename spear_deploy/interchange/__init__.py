"""Network files: .snn, NIR, netx and ONNX, read, written and certified."""

from spear_deploy.interchange.formats import (
    export,
    lint,
    load,
    reader_options,
    start_ahead,
    supported_modules,
)

__all__ = ["export", "lint", "load", "reader_options", "start_ahead", "supported_modules"]
