"""Does it fit, and what would make it fit?

verdict      all rows and the answer                     text         the report as a person reads it
core_rows    how full the cores are                      check_connections     what a neuron and the edge are connected to
check_layer_kinds    formats, models, kinds of layers            support      what the chip does not have at all
trial        the same about a changed network            remedies     which change removes a violation
html         the report in a notebook
"""

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import BudgetRow, Status
from spear_deploy.budget.report import BudgetReport, Verdict

__all__ = ["BudgetReport", "BudgetRow", "Status", "Verdict", "check"]
