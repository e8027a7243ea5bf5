"""What lines of a log tell the cause of an engine's end, as far as it is the same for all engines. Pure data.

The order counts: what is more specific comes first. Every rule has a case in tests/registry/last_words/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A line that tells the cause; groups of the pattern may be used in `cause` as {1}, {2} …"""

    pattern: re.Pattern[str]
    code: str
    cause: str = "{0}"
    remedy: str = ""


def rule(pattern: str, code: str, *, cause: str = "{0}", remedy: str = "") -> Rule:
    """A `Rule` from the text of its pattern."""
    return Rule(re.compile(pattern), code, cause, remedy)


SMALLER = "give it a smaller context, free the device, or use a smaller or quantised model"
AGAIN = "download the model again"
REINSTALL = "install the engine again: `modelyard engine install`"
DRIVER = "update the driver, or install a build of the engine that fits the one here"
OTHER_CPU = "install a build of the engine for this CPU"

COMMON: tuple[Rule, ...] = (
    rule(r"(?:\[Errno \d+\]|error while attempting to bind|OSError).*[Aa]ddress already in use"
         r"|couldn't bind HTTP server socket.*|bind\(\) failed.*[Aa]ddress already in use",
         "port_taken", cause="its port was taken by another process"),
    # Driver and device come before memory: without either every later line is a consequence.
    rule(r"CUDA driver version is insufficient for CUDA runtime version"
         r"|The NVIDIA driver on your system is too old.*|NVML: Driver/library version mismatch.*"
         r"|Driver/library version mismatch.*|forward compatibility was attempted on non supported HW.*",
         "driver_mismatch", remedy=DRIVER),
    rule(r"CUDA error: no kernel image is available for execution on the device"
         r"|.*is not compatible with the current PyTorch installation.*"
         r"|CUDA error: the provided PTX was compiled.*",
         "driver_mismatch", remedy=DRIVER),
    rule(r"Found no NVIDIA driver on your system.*|No CUDA GPUs are available|Failed to infer device type.*"
         r"|no CUDA-capable device is detected.*|CUDA-capable device\(s\) is/are busy or unavailable",
         "no_device", remedy="check with `nvidia-smi` that the GPU is there, free and visible to the daemon"),
    rule(r"(?:torch\.)?(?:cuda\.)?OutOfMemoryError: (.+)|CUDA out of memory.*|CUDA error: out of memory"
         r"|cudaMalloc failed: out of memory|HIP out of memory.*|unable to allocate \S+ buffer",
         "out_of_memory", remedy=SMALLER),
    rule(r"Insufficient Memory.*|\[METAL\] Command buffer execution failed.*"
         r"|kIOGPUCommandBufferCallbackErrorOutOfMemory.*|\[metal::malloc\] (?:Attempting to"
         r"|Unable to) allocate.*",
         "out_of_memory", remedy=SMALLER),
    rule(r"MemoryError.*|Cannot allocate memory.*|std::bad_alloc.*"
         r"|\[malloc(?:_or_wait)?\] Unable to allocate.*"
         r"|DefaultCPUAllocator: can't allocate memory.*|failed to mmap.*Cannot allocate",
         "out_of_memory", remedy=SMALLER),
    rule(r"Failed core proc\(s\): \{.*: -9\b.*|Worker proc \S+ died unexpectedly.*-9\b.*"
         r"|[Oo]ut of memory: Killed process.*",
         "out_of_memory", cause="one of its processes was killed, most likely for want of memory",
         remedy=SMALLER),
    rule(r"No space left on device.*|.*Disk quota exceeded.*|.*not enough (?:free )?disk space.*",
         "disk_full",
         remedy="free space in the cache and state folders"),
    rule(r".*(?:insufficient|out of) shared memory.*|unable to (?:write to|allocate) shared memory.*",
         "shared_memory_full", remedy="enlarge /dev/shm (in a container: --shm-size or --ipc=host)"),
    rule(r"Fatal Python error: (Illegal instruction)|Illegal instruction.*", "unsupported_cpu",
         cause="it used an instruction that this CPU does not have", remedy=OTHER_CPU),
    rule(r".*(?:version `GLIBC\w*_[\d.]+' not found|undefined symbol: ).*", "engine_broken",
         remedy=REINSTALL),
    rule(r"(?:\S*: )?error while loading shared libraries: (.+)|(?:ImportError"
         r"|OSError): (lib\S+: cannot open shared object.*)"
         r"|dyld\[\d+\]: (Library not loaded: .+)|(?:\w+ )*FATAL ERROR: (Cannot load .+)",
         "engine_broken", cause="{1}{2}{3}{4}", remedy=REINSTALL),
    rule(r"^(?:ModuleNotFoundError|ImportError): (.+)", "engine_broken", cause="{1}", remedy=REINSTALL),
    rule(r"\berror: (unrecognized arguments: .+|argument .+|the following arguments are required: .+)",
         "bad_arguments", cause="{1}", remedy="correct `args` of this model or of the engine"),
    rule(r"^error: ((?:invalid|unknown) argument: .+)|\b(unrecognized option .+|unknown option .+)",
         "bad_arguments", cause="{1}{2}", remedy="correct `args` or `cmd` of this model"),
    rule(r".*(?:You are trying to access a gated repo|GatedRepoError|Cannot access gated repo).*",
         "gated_model",
         cause="its files are gated",
         remedy="ask for access on its page on the hub, then download it with `hf download`"),
    rule(r".*(?:RepositoryNotFoundError|401 Client Error|is not a valid model identifier).*", "model_missing",
         remedy="check the name, log in with `hf auth login`, and download it with `hf download`"),
    rule(r".*(?:LocalEntryNotFoundError|Cannot find an appropriate cached snapshot"
         r"|We couldn't connect to '?https://huggingface).*"
         r"|.*(?:HFValidationError|Failed to download ).*|.*OfflineModeIsEnabled.*",
         "model_missing", cause="its files are not on this machine",
         remedy="download it with `hf download`, or correct `source`"),
    rule(r"SafetensorError: (.+)|\[load_safetensors\].+|HeaderTooLarge.*|InvalidHeaderDeserialization.*"
         r"|MetadataIncompleteBuffer.*|.*tensor '.*' data is not within the file bounds.*"
         r"|.*invalid magic characters.*",
         "bad_checkpoint", remedy=AGAIN),
    rule(r".*error loading model.*(unknown (?:model )?architecture: .+)", "unsupported_architecture",
         cause="{1}",
         remedy="try a newer version of the server, or another engine"),
    rule(r"ValueError: (Missing \d+ parameters.*|Received (?:\d+ )?parameters not in.*|Expected shape .+)",
         "bad_checkpoint", cause="the weights do not fit the architecture: {1}",
         remedy="download the model again, or try a newer engine"),
    rule(r"^(?:model|language_model|lm_head)\.[\w.]+\.(?:weight|bias|scales|biases)[,.]$", "bad_checkpoint",
         cause="the weights do not fit the architecture: parameters are missing, the last of them {0}",
         remedy="download the model again, or try a newer engine"),
    rule(r"model type `(\S+)` but Transformers does not recognize this architecture",
         "unsupported_architecture",
         cause="its transformers does not know the model type {1}",
         remedy="try another engine or a newer version of it"),
    rule(r"(?:json\.decoder\.)?JSONDecodeError: .*", "bad_checkpoint",
         cause="one of its JSON files cannot be read: {0}", remedy=AGAIN),
    rule(r"(?:PermissionError: )?(.*Permission denied.*)", "permission_denied", cause="{1}",
         remedy="give the daemon's user access to it"),
    rule(r"^(?:\w+: )?(?:\[Errno 24\] )?Too many open files.*", "limit_reached",
         remedy="raise the limit of open files of the daemon (LimitNOFILE= in its unit, `ulimit -n`)"),
    rule(r"^cannot run (\S+): .*", "not_installed", cause="{0}",
         remedy="correct `cmd`, or install what it names"),
    rule(r"(?:FileNotFoundError|OSError): (.*(?:[Nn]o such file|not found|does not appear to have a file).*)"
         r"|(?:failed to open|unable to open) (?:GGUF )?file.*",
         "bad_checkpoint", remedy="check that the path is right, or download the model again"),
)  # fmt: skip
