"""200 random networks there and back, and the page of each framework, in an environment that has it."""

import subprocess
from pathlib import Path

import pytest

from tests.support.framework_environments import NotInstalled, install

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "sinabs", "rockpool"])
def test_200_random_networks_spike_as_in_their_framework(framework, tmp_path):
    try:
        python, environment = install(framework, tmp_path)
    except NotInstalled as error:
        pytest.skip(f"{framework} cannot be installed here: {error}")
    command = [
        python,
        "-m",
        "pytest",
        HERE / f"test_{framework}.py",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        "-rs",
        "-m",
        "",
    ]
    environment["SPEAR_RANDOM_NETWORKS"] = "200"
    command += [HERE / "test_back_home.py", HERE.parent / "test_docs.py"]
    command += ["-k", f"test_{framework} or from_{framework} or (back_home and {framework})"]
    completed = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], timeout=1800, check=False
    )
    assert completed.returncode == 0, completed.stdout[-3000:]
    assert "SKIPPED" not in completed.stdout
