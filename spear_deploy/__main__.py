"""`python -m spear_deploy`, where the folder of the command is not on the path."""

from spear_deploy.cli import main

if __name__ == "__main__":
    main(prog_name="spear-deploy")
