"""Loads a bundle's binaries as Triton's own compiled kernels, without its compiler and its cache."""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from triton.compiler import CompiledKernel

from tuner.runtime.bundle import BundledBinary


def compiled_kernel(binary: BundledBinary) -> Any:
    """The `CompiledKernel` of a binary, not loaded to a device yet.

    Triton reads it from files. These are written from the bytes that were checked, so that a bundle may be replaced
    under a running server.
    """
    with tempfile.TemporaryDirectory(prefix="tuner-bundle-") as folder:
        files = {
            f"{binary.source.name}.{binary.code_suffix}": binary.code,
            f"{binary.source.name}.json": binary.metadata,
        }
        group = {}
        for name, content in files.items():
            path = Path(folder, name)
            path.write_bytes(content)
            group[name] = str(path)
        return CompiledKernel(_source(binary), group, json.loads(binary.metadata)["hash"])


def _source(binary: BundledBinary) -> Any:
    """What Triton's launcher reads of a source; it needs no function that could be compiled."""
    source = binary.source
    return SimpleNamespace(
        name=source.name,
        fn=SimpleNamespace(arg_names=[*source.names], __name__=source.name, launch_metadata=None),
        signature=dict(zip(source.names, source.types, strict=True)),
        constants=dict(source.constants),
        attrs={path: [[*each] for each in attributes] for path, attributes in source.attributes},
    )
