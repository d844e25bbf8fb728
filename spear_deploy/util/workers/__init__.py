"""Jobs in this process, in processes, on Ray or through Slurm."""

from spear_deploy.util.workers.map_jobs import map_jobs as map_jobs
from spear_deploy.util.workers.settings import Workers as Workers
from spear_deploy.util.workers.settings import give_logs as give_logs
from spear_deploy.util.workers.settings import parse_workers as parse_workers
from spear_deploy.util.workers.settings import read_workers as read_workers
