"""uv, played by a script that makes a real environment and puts tiny distributions into it: no network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

UV = """\
#!{python}
import json, pathlib, shutil, subprocess, sys
words = sys.argv[1:]
if words[0] == "venv":
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", words[-1]], check=True)
    sys.exit()
knobs = json.loads(pathlib.Path(__file__).with_name("knobs.json").read_text())
folder = pathlib.Path(words[words.index("--python") + 1]).parent.parent
site = next(folder.glob("lib/python3*/site-packages"))
if words[1] == "uninstall":
    for name in words[4:]:
        shutil.rmtree(site / name)
        shutil.rmtree(next(site.glob(f"{{name}}-*.dist-info")))
    sys.exit()
for name, version, module in knobs["packages"]:
    (site / module).mkdir()
    (site / module / "__init__.py").touch()
    (site / module / "server.py").write_text(knobs.get("code", ""))
    info = site / f"{{name.replace('-', '_')}}-{{version}}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {{name}}\\nVersion: {{version}}\\n")
    files = [f"{{module}}/__init__.py", f"{{module}}/server.py"]
    for script in knobs["scripts"]:
        (folder / "bin" / script).write_text(knobs["server"])
        (folder / "bin" / script).chmod(0o755)
    (info / "RECORD").write_text("".join(f"{{file}},,\\n" for file in files))
print("Installed", len(knobs["packages"]), "packages")
"""

NOTHING = "#!/bin/sh\n"


class FakeUv:
    """`uv` in *folder*; what it installs is what it `ships`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "uv"
        self.path.write_text(UV.format(python=sys.executable))
        self.path.chmod(0o755)

    def ships(
        self,
        *packages: tuple[str, str, str],
        code: str = "",
        scripts: tuple[str, ...] = ("mlx_lm.server",),
        server: str = NOTHING,
    ) -> None:
        """From now on: *packages* as (name, version, module), each with a module `server` of *code*, and
        console *scripts* with the text *server*."""
        knobs = {"packages": packages, "code": code, "scripts": scripts, "server": server}
        self.path.with_name("knobs.json").write_text(json.dumps(knobs))
