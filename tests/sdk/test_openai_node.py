"""The OpenAI SDK for Node, unchanged, against the daemon; its cases are in `node/suite.test.mjs`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.running_daemon import RunningDaemon

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
SUITE = Path(__file__).with_name("node")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite with the SDK that its lock file names beside it."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("node") / "suite"
    shutil.copytree(SUITE, folder)
    npm = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    got = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    if got.returncode != 0:
        pytest.skip(f"npm cannot get the SDK: {got.stderr.strip()[-300:]}")
    return folder


def test_the_suite(suite: Path, daemon: RunningDaemon, spacious: RunningDaemon, read_timeout: float) -> None:
    told = {
        "BASE_URL": daemon.url,
        "SPACIOUS_URL": spacious.url,
        "TIMEOUT_MS": str(int(read_timeout * 1000)),
    }
    command = ["node", "--test", "--test-reporter=spec", "suite.test.mjs"]
    ran = subprocess.run(
        command,
        cwd=suite,
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
