"""A `ChildRecord` that no process stands behind."""

from __future__ import annotations

from config.vocabulary import EngineName
from registry.engine import ModelId
from supervisor.ports import ChildRecord

RECORD = ChildRecord(
    model=ModelId("org/m"),
    engine=EngineName.MLX_LM,
    fingerprint="f",
    incarnation=3,
    port=20001,
    key="k",
    shim_pid=10,
    shim_started=123.0,
    pid=11,
    boot_id="b",
    socket="/run/1/s",
    log="/log",
    spawned_at=1.5,
)
