"""What a daemon in a terminal says when it serves: lines that a person can paste as they stand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from config.listening import reached_at
from config.schema import Settings
from registry.catalog import Catalog

PROGRAM = "modelyard"


def welcome(
    catalog: Catalog, listen: str, version: str, *, keys: bool = False, command: str | None = None
) -> str:
    """What to type next. *command* is how this program is called there; unset, it is found out."""
    url, _ = reached_at(listen)
    usable = [model.id for model in catalog.models.values() if model.problem is None]
    if not usable:
        found = [f"  {m.id}: {m.problem}" for m in catalog.models.values() if m.problem is not None]
        hint = "\n".join(found[:5]) or "  No model was found: name one under models: in modelyard.yaml."
        return f"\nmodelyard {version} is ready on {url}, but no model can be served yet.\n{hint}\n\n"
    model = catalog.default_model or usable[0]
    question = '{"role":"user","content":"What is modelyard?"}'
    body = f'{{"model":"{model}","stream":true,"messages":[{question}]}}'
    # Commands look where the configuration says, and this address may have come from an option.
    where = "" if url == reached_at(Settings().addresses[0])[0] else f" --url {url}"
    shown, set_first = (" -H 'Authorization: Bearer KEY'", "MODELYARD_API_KEY=KEY ") if keys else ("", "")
    return (
        f"\nmodelyard {version} is ready on {url} ({len(usable)} models). Try:\n\n"
        f"  curl -N {url}/v1/chat/completions -H 'Content-Type: application/json'{shown} \\\n"
        f"    -d '{body}'\n"
        f"  {set_first}{command or this_command()} chat {model}{where}\n"
        f"  {url}/status          in a browser\n\n"
        "Ctrl-C stops it and its models.\n\n"
    )


def this_command() -> str:
    """The word that starts this installation here: its name where PATH finds it, else its path."""
    script = Path(sys.executable).with_name(PROGRAM)
    if not script.exists():
        return PROGRAM
    found = shutil.which(PROGRAM)
    if found is not None and Path(found).samefile(script):
        return PROGRAM
    here = Path.cwd()
    if here == script.parent:
        return f"./{PROGRAM}"
    # Somebody in a checkout types `.venv/bin/modelyard`; a path from the root is nobody's shorter way.
    return str(script.relative_to(here)) if here != Path("/") and script.is_relative_to(here) else str(script)
