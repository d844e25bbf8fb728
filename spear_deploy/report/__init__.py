"""Report pages, made of the files of a deployment."""

from spear_deploy.report.page import write_report

__all__ = ["write_report"]
