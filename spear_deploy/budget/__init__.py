"""Budget of a network on a chip: verdict, report and remedies.

check             all rows and the verdict                report         the report as data, text and HTML
core_rows         rows of the fullest cores               connection_rows  connections, formats, kinds of layers
limit_rows        limits of the user, work of a step
unsupported       what the chip does not have             what_if        the check of a changed network
remedies          changes that remove a violation         chip_ranking   several chips, the best first
energy, latency, traffic   from counted spikes            budget_file, sarif   files
"""

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import BudgetRow, Status
from spear_deploy.budget.report import BudgetReport, Verdict

__all__ = ["BudgetReport", "BudgetRow", "Status", "Verdict", "check"]
