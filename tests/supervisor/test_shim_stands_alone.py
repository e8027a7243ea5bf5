"""The shim outlives versions, so it needs nothing but a Python from 3.9 on."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.shim_client import SHIM

ROOT = SHIM.parents[1]
FILES = sorted(SHIM.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_its_syntax_is_that_of_python_3_9(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 9))


def test_it_imports_the_standard_library_and_itself() -> None:
    code = f"""if True:
        import sys
        sys.path.append({str(ROOT)!r})
        import supervisor.shim.entry, json
        print(json.dumps(sorted(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True)
    loaded = json.loads(done.stdout)
    foreign = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    ours = {name for name in foreign if name.startswith("supervisor.shim")}
    assert foreign - ours == {"__main__", "supervisor"}
    heavy = {"typing", "asyncio", "subprocess", "logging", "dataclasses", "inspect", "ssl", "threading"}
    assert not heavy & set(loaded)
