"""What can be wrong with a request's model or with a model itself. HTTP is `router.errors`' business."""

from __future__ import annotations


class RegistryError(Exception):
    """Base. `code` is stable and part of the API; the message says what, which model and what to do."""

    code = "registry_error"

    def __init__(self, message: str, *, candidates: tuple[str, ...] = (), param: str | None = None) -> None:
        super().__init__(message)
        self.candidates = candidates
        """Ids that the client might have meant or might use instead."""
        self.param = param
        """The member of the request that is wrong, where it is not the usual one."""


class ModelNotFoundError(RegistryError):
    """No model has that name."""

    code = "model_not_found"


class AmbiguousModelError(RegistryError):
    """Several models fit that name."""

    code = "ambiguous_model"


class ModelRequiredError(RegistryError):
    """The request names no model and no default is configured."""

    code = "model_required"


class VirtualNameError(RegistryError):
    """`auto:…` asks for something nobody knows, or a virtual name is used where one model must be named."""

    code = "invalid_virtual_model"


class NothingLoadedError(RegistryError):
    """`auto:loaded`, and no model that is loaded can serve the request."""

    code = "nothing_loaded"


class CapabilityMissingError(RegistryError):
    """The model cannot serve that endpoint, or what the request has in it; `candidates` can."""

    code = "capability_missing"


class ContextExceededError(RegistryError):
    """The request asks for a longer answer than the model's whole context; the code is OpenAI's."""

    code = "context_length_exceeded"


class ModelUnusableError(RegistryError):
    """The model is known and cannot be served: broken or partial checkpoint, no engine for it here."""

    code = "model_unusable"


class EngineMissingError(ModelUnusableError):
    """The engine that serves it is not installed; the message carries the command that installs it."""

    code = "engine_not_installed"
