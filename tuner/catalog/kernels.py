"""Finds kernels: bundled ones, those in `$TUNER_KERNEL_PATH`, and a folder given by path."""

import hashlib
import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType

from tuner import settings
from tuner.catalog.content import content_root
from tuner.catalog.spec import HostFunction, Implementation, KernelSpec
from tuner.errors import UnknownNameError, UserError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEW_LINE = re.compile(r"\r\n?")
_HINT = (
    "`tuner kernels` lists them. For one of your own set TUNER_KERNEL_PATH to the folder above its own, or name its "
    "folder in a command, with a slash."
)


@dataclass(frozen=True)
class Kernel:
    """A kernel's folder with its spec. Its files are read once, so that what is done with it is of one source."""

    folder: Path
    spec: KernelSpec

    @property
    def name(self) -> str:
        return self.spec.name

    def source(self, implementation: Implementation) -> str:
        """The text of the file that holds an implementation."""
        return _NEW_LINE.sub("\n", self._files[Path(implementation.file).as_posix()].decode())

    @property
    def space_path(self) -> Path:
        """The kernel's search space: `space.yaml` in its own folder, else `search_spaces/<name>.yaml`."""
        own = self.folder / "space.yaml"
        return own if own.is_file() else content_root() / "search_spaces" / f"{self.name}.yaml"

    @cached_property
    def source_digest(self) -> str:
        """16 hex digits over every Python file of the folder, and of those in it, but `op.py`.

        Kernel, launch, inputs and reference decide what a result means: a change in any makes another measurement. How
        a serving process calls the kernel changes nothing that was measured.
        """
        return _digest(self._files)

    @property
    def is_changed(self) -> bool:
        """Whether the folder has another source now; workers that start later would load that."""
        try:
            return _digest(_python_files(self.folder)) != self.source_digest
        except FileNotFoundError:  # one that is just being replaced
            return True

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return _python_files(self.folder)

    @property
    def host_function(self) -> HostFunction:
        """How a serving process calls the kernel; UserError when `op.py` is missing or cannot be loaded."""
        path = self.folder / "op.py"
        if not path.is_file():
            hint = "Define `OP = HostFunction(...)` there; see tuner/catalog/spec.py."
            raise UserError(f"{self.name} cannot be called as an op: {path} is missing.", hint=hint)
        found = getattr(_import(self.folder, "op"), "OP", None)
        if not isinstance(found, HostFunction):
            raise UserError(f"{path} defines no `OP = HostFunction(...)`.")
        return found


def _python_files(folder: Path) -> dict[str, bytes]:
    """The contents of the Python files by their paths in the folder, in order; none of hidden folders."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*.py"))}
    shown = {name: path for name, path in paths.items() if not any(part.startswith(".") for part in name.parts)}
    return {name.as_posix(): path.read_bytes() for name, path in shown.items()}


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        if name != "op.py":
            digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:16]


def kernel_names() -> dict[str, Path]:
    """Every kernel that can be named, with its folder; earlier folders win."""
    found: dict[str, Path] = {}
    for parent in (*settings.kernel_folders(), content_root() / "kernels"):
        if parent.is_dir():
            for folder in sorted(parent.iterdir()):
                if _NAME.fullmatch(folder.name) and (folder / "spec.py").is_file():
                    found.setdefault(folder.name, folder)
    return found


def load_kernel(name: str) -> Kernel:
    """The kernel of that name; UnknownNameError when there is none, UserError when its spec.py cannot be loaded."""
    known = kernel_names()
    if name not in known:
        raise UnknownNameError("kernel", name, known, hint=_HINT)
    return load_folder(known[name])


def load_folder(folder: Path) -> Kernel:
    """The kernel in a folder; UserError when it has no spec.py or one that cannot be loaded."""
    if not _NAME.fullmatch(folder.resolve().name):
        raise UserError(f"{str(folder)!r} cannot hold a kernel: its name is not an identifier.")
    if not (folder / "spec.py").is_file():
        raise UserError(f"No kernel in {str(folder)!r}: it has no spec.py.", hint="Name a folder with a spec.py.")
    return _load(folder.resolve())


@lru_cache(maxsize=64)
def _load(folder: Path) -> Kernel:
    spec = getattr(_import(folder, "spec"), "SPEC", None)
    if not isinstance(spec, KernelSpec):
        raise UserError(f"{folder / 'spec.py'} defines no `SPEC = KernelSpec(...)`.")
    if spec.name != folder.name:
        raise UserError(f"{folder / 'spec.py'} names the kernel {spec.name!r}; its folder says {folder.name!r}.")
    kernel = Kernel(folder, spec)
    for implementation in spec.implementations:
        if Path(implementation.file).as_posix() not in kernel._files:
            raise UserError(
                f"{folder / 'spec.py'} names the source {implementation.file!r}; expected a .py file in the folder."
            )
    _check_baseline(folder, spec)
    return kernel


def _check_baseline(folder: Path, spec: KernelSpec) -> None:
    """UserError where the baseline is no config of the kernel's implementations."""
    given, expected = spec.baseline.parameters, spec.implementation(spec.baseline.implementation).parameters
    if {*given} != {*expected}:
        raise UserError(
            f"{folder / 'spec.py'} gives the baseline values for {', '.join(given) or 'no parameter'}; expected "
            f"{', '.join(expected) or 'none'}."
        )


def _import(folder: Path, name: str) -> ModuleType:
    """Import a file as a module of a package that has the folder as its path, so that relative imports work."""
    package = f"_tuner_kernel_{folder.name}_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    if package not in sys.modules:
        module = ModuleType(package)
        module.__path__ = [str(folder)]
        sys.modules[package] = module
    try:
        return importlib.import_module(f"{package}.{name}")
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{folder / name}.py cannot be loaded: {type(error).__name__}: {error}") from error
