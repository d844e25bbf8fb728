"""Networks as PyNN scripts, for sPyNNaker."""
