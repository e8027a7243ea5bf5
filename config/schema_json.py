"""Prints the JSON schema of `modelyard.yaml`: `python -m config.schema_json > config/schema.json`.

Editors use it for completion; a test holds the committed file to it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from config.schema import Settings


def schema_text() -> str:
    """The schema as it is committed."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema.update(Settings.model_json_schema(mode="validation"))
    schema["title"] = "modelyard.yaml"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
