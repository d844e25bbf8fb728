"""Networks of torch frameworks: their conventions, and the tracing that all share."""
