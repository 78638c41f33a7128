"""Permissions do not bind root, so a test of them runs as another user."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-store-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        folder.chmod(0o777)
        shutil.rmtree(folder)


def as_ordinary_user(action: Callable[[], object]) -> str:
    """Run in a child process without root's rights; returns `repr` of the result or of the exception."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            result = repr(action())
        except BaseException as error:  # noqa: BLE001  (reported to the parent)
            result = f"{type(error).__name__}: {error}"
        os.write(sender, result.encode()[:4096])
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as stream:
        result = stream.read()
    os.waitpid(child, 0)
    return result
