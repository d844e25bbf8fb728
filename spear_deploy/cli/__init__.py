"""Command line: arguments in, a table or one JSON object out."""

from spear_deploy.cli.app import main

__all__ = ["main"]
