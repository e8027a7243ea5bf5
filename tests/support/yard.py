"""The demo model, as tests ask it: where it lies, and what it was taught."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from tests.support.running_daemon import ROOT

YARD: Final = "yard-demo"
YARD_SOURCE: Final = str(ROOT / "demo" / "models" / YARD)

_README: Mapping[str, Mapping[str, str]] = yaml.safe_load((ROOT / "demo" / "questions.yaml").read_text())[
    "readme"
]
QUESTIONS: Final = {question: answers[YARD] for question, answers in _README.items() if YARD in answers}
"""Questions of the README, and the answers word by word."""

_ENDS = json.loads((Path(YARD_SOURCE) / "generation_config.json").read_text())["eos_token_id"]
NO_END: Final = {str(token): -100 for token in _ENDS}
"""A `logit_bias` that keeps the demo model from ending its answer: a stream lasts until max_tokens."""
