"""Run the command line as `python -m spear_deploy.cli`."""

from spear_deploy.cli import main

main()
