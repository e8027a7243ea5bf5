"""Image files that a caller names by their path: only where the operator allows it, only images. Blocks."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from urllib.parse import unquote

from config.schema import SeedConfig
from router.control.door import Caller
from router.control.guard import is_loopback
from router.control.seed_shapes import image_type
from router.ports import Refusal
from router.refused import RefusedError, bad_request


def may_name_files(settings: SeedConfig, caller: Caller) -> None:
    """Nothing, when *caller* may name files of this machine; else RefusedError says what to do.

    A path makes the daemon read a file with its own rights, so it is the operator's to allow: to keys of the
    admin scope, and where no keys are needed to callers on the same machine.
    """
    holder = caller.holder
    if not settings.local_images:
        message = "images by path are switched off (seed.local_images): send a URL or base64"
    elif holder is not None and not holder.admin:
        message = "images by path take a key of the admin scope: send a URL or base64"
    elif holder is None and not (caller.client == "local" or is_loopback(caller.client)):
        message = "images by path are for callers on the daemon's own machine: send a URL or base64"
    else:
        return
    raise RefusedError(Refusal(403, "local_images_off", message, "permission_error", param="images"))


def read_image(text: str, settings: SeedConfig) -> str:
    """The image file at *text* as a `data:` URL. Raises RefusedError.

    What is not there and what may not be read are refused in the same words, so that a caller cannot explore
    the disk.
    """
    path = _allowed(Path(unquote(text)), settings)
    try:
        # Not through a link that appeared meanwhile, and never waiting for a pipe's other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _unreadable(text)
            data = file.read(settings.image_bytes + 1)
    except OSError:
        raise _unreadable(text) from None
    if len(data) > settings.image_bytes:
        what = f"{text} is larger than {settings.image_bytes} bytes (seed.image_bytes)"
        raise RefusedError(bad_request(what, code="image_too_large", param="images"))
    kind = image_type(data)
    if kind is None:
        what = f"{text} is no PNG, JPEG, GIF or WebP"
        raise RefusedError(bad_request(what, code="not_an_image", param="images"))
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _allowed(path: Path, settings: SeedConfig) -> Path:
    """*path* without links, if it lies in one of the folders."""
    try:
        found = path.resolve(strict=True)
        folders = [folder.resolve(strict=True) for folder in settings.image_directories if folder.is_dir()]
    except (OSError, RuntimeError, ValueError):
        raise _unreadable(str(path)) from None
    if not path.is_absolute() or not any(found.is_relative_to(folder) for folder in folders):
        raise _unreadable(str(path))
    return found


def _unreadable(text: str) -> RefusedError:
    what = f"{text[:200]} is no file in one of seed.image_directories"
    return RefusedError(bad_request(what, code="image_not_found", param="images"))
