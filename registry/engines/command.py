"""command: any server by a template. What we do not know about it, the operator says in its entry."""

from __future__ import annotations

import shlex

from config.schema import ModelConfig
from config.vocabulary import EngineName
from registry.engine import (
    HOST,
    DeviceId,
    Diagnosis,
    Footprint,
    HttpOk,
    Installation,
    LaunchSpec,
    Lists,
    Machine,
    PortOwned,
    ReadinessStep,
    Recipe,
    StopPolicy,
    Wire,
)
from registry.engines.diagnosis import diagnose
from registry.engines.launching import options_of
from registry.footprint import COMMAND, weights_bytes
from registry.model import Model


class Command:
    """The adapter for command templates."""

    name = EngineName.COMMAND

    def refuses(self, model: Model, machine: Machine) -> str | None:
        """A template must say where the port goes, and can only be cut into words if its quotes match."""
        options = options_of(model)
        if options.cmd is None:
            return "engine: command needs a cmd"
        try:
            words = _words(options.cmd)
            _words(options.cmd_stop or ())
        except ValueError as error:
            return f"its cmd cannot be read: {error}"
        text = "\0".join((*words, *options.env.values()))
        if not words or "{port}" not in text:
            return "its cmd needs {port}: the server must listen where we look for it"
        if isinstance(options.memory, dict) and ANY_GPU in options.memory and not machine.gpus:
            return "its memory is on a GPU, and this machine has none"
        missing = _devices(options, machine).keys() - {HOST} - {device for device, _ in machine.gpus}
        if missing:
            return f"its memory names {', '.join(sorted(missing))}, which this machine does not have"
        if "{path}" in text and model.path is None:
            return f"its cmd needs {{path}}, but {model.source or 'source'} is not on this machine"
        return None

    def recipe(self, machine: Machine) -> Recipe:
        """Nothing: it is the operator's own."""
        return Recipe(())

    def launch_spec(self, model: Model, installation: Installation, machine: Machine) -> LaunchSpec:
        """`{model}` and `{path}` are filled in here, `{port}` when the port is known."""
        options = options_of(model)
        served = options.served_name or model.id

        def fill(text: str) -> str:
            return text.replace("{model}", served).replace("{path}", str(model.path or ""))

        healthy = HttpOk(options.health)
        proof: dict[str, tuple[ReadinessStep, ...]] = {
            "tree": (PortOwned(), healthy),
            "models": (healthy, Lists(served)),
            "none": (healthy,),
        }
        estimate = weights_bytes(model.facts.size_bytes.value or 0) + COMMAND.host_bytes
        given = _devices(options, machine)
        own = {name: fill(value) for name, value in options.env.items()}
        chosen = bool(self.spreads(model, machine))
        return LaunchSpec(
            model=model.id,
            engine=self.name,
            argv=tuple(fill(word) for word in (*_words(options.cmd or ()), *options.args)),
            # Where it goes is the operator's choice, unless that was left to us.
            env={**own, **_visible(given)} if chosen else {**_visible(given), **own},
            readiness=proof[options.identity],
            stop=StopPolicy(command=_words(options.cmd_stop) if options.cmd_stop else None),
            footprint=Footprint(given, "models.memory") if given else Footprint({HOST: estimate}),
            identity=options.identity,
        )

    def spreads(self, model: Model, machine: Machine) -> tuple[tuple[DeviceId, ...], ...]:
        """Each GPU alone, for one that may go on any."""
        memory = options_of(model).memory
        anywhere = isinstance(memory, dict) and ANY_GPU in memory
        return tuple((device,) for device, _ in machine.gpus) if anywhere else ()

    def wire(self, model: Model) -> Wire:
        """Nobody told us whether its streams end with `[DONE]`, so a missing one proves nothing."""
        served = options_of(model).served_name
        # Without a served name the id is sent as it is, and so is every alias: it may know them.
        accepted = frozenset({served}) if served else frozenset({model.id, *model.aliases})
        return Wire(served_name=served or model.id, accepted_names=accepted, sends_done=False)

    def diagnose(self, tail: tuple[str, ...], exit_code: int | None) -> Diagnosis:
        """See `registry.engines.diagnosis`."""
        return diagnose(tail, exit_code)


ANY_GPU = "gpu"
"""A device of `memory`: whichever GPU has room."""


def _devices(options: ModelConfig, machine: Machine) -> dict[DeviceId, int]:
    """Bytes per device as the operator gave them, any GPU being the first; empty when nothing was said."""
    if isinstance(options.memory, dict):
        first = machine.gpus[0][0] if machine.gpus else DeviceId(ANY_GPU)
        return {
            first if device == ANY_GPU else DeviceId(device): size for device, size in options.memory.items()
        }
    return {HOST: options.memory} if options.memory else {}


def _visible(given: dict[DeviceId, int]) -> dict[str, str]:
    """What keeps a server to the GPUs that were set aside for it; nothing where no GPU is named."""
    gpus = sorted(int(device.removeprefix("gpu")) for device in given if device != HOST)
    if not gpus:
        return {}
    # Our numbers are NVML's, which are the bus order; CUDA's own default is the fastest first.
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _words(template: str | tuple[str, ...]) -> tuple[str, ...]:
    """The words of a command; raises ValueError for quotes that do not match."""
    return tuple(shlex.split(template)) if isinstance(template, str) else tuple(template)
