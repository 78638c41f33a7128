"""Files in the cache folder, which several processes and users may share."""

import uuid
from pathlib import Path

from tuner.errors import UserError


def keep(path: Path, text: str) -> None:
    """Make a file hold a text; other processes see all of it or none. UserError where it cannot be written."""
    try:
        if path.is_file() and path.read_bytes() == text.encode():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(text.encode())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"The cache folder {path.parent} cannot be written: {error.strerror or error}.",
            hint="Set TUNER_CACHE to a folder you can write.",
        ) from error
