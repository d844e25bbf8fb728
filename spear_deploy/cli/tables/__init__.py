"""Tables of results for a terminal."""

from spear_deploy.cli.tables.chips import show_check, show_lint, show_profile, show_profiles, show_rank
from spear_deploy.cli.tables.grid import list_files, make_table
from spear_deploy.cli.tables.results import (
    show_aims,
    show_certificate,
    show_deployment,
    show_levers,
    show_times,
    write_bits,
    write_width,
)
from spear_deploy.cli.tables.runs import show_compare, show_count, show_simulation

__all__ = [
    "list_files", "make_table", "show_aims", "show_certificate", "show_check", "show_compare", "show_count", "show_deployment",
    "show_levers", "show_lint", "show_profile", "show_profiles", "show_rank", "show_simulation", "show_times", "write_bits",
    "write_width",
]  # fmt: skip
