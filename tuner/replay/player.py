"""Plays the steps of one arm: a job for a new process that has an empty Triton cache."""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton import knobs
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from tuner.catalog import Kernel, load_folder
from tuner.errors import UserError
from tuner.processes import Failure
from tuner.records import Shape, Status, Target, Variant
from tuner.runtime.bundle import Bundle, Refused, read_bundle


@dataclass(frozen=True)
class ArmJob:
    """What to play: the shape of each step, and the variant of each shape.

    `warm_up` are shapes that are launched before the steps begin. `target` None launches on this machine's GPU; a
    target compiles for it, and estimates. `seed` fixes the inputs. `bundles` is the folder of a bundle to load from.
    """

    folder: Path
    steps: tuple[Shape, ...]
    variants: Mapping[Shape, Variant]
    warm_up: tuple[Shape, ...]
    target: Target | None
    seed: int
    bundles: Path | None = None


@dataclass(frozen=True)
class Build:
    """A binary that Triton made within a call, or found in its disk cache (`cached`); step None is the warm-up."""

    step: int | None
    shape: Shape
    seconds: float
    cached: bool


@dataclass(frozen=True)
class Played:
    """Seconds of each step's launch call until it returned, what was built in which, and one launch's time by shape."""

    host_s: tuple[float, ...]
    builds: tuple[Build, ...]
    warm_up_s: float
    kernel_us: Mapping[Shape, float]


class ArmFailedError(Exception):
    """The arm cannot go on."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.log)
        self.failure = failure


class Player(ABC):
    """Launches a kernel at a shape, or does of it what is possible without a GPU."""

    @abstractmethod
    def launch(self, shape: Shape) -> float:
        """Seconds of the launch call until it returned, what Triton compiled in it included."""

    @abstractmethod
    def kernel_us(self, shape: Shape) -> float:
        """The time of one launch at a shape that was launched before."""


def play(job: ArmJob) -> Played | Failure:
    """Launch the warm-up and then every step in order, one launch each; how an arm ends that cannot be played."""
    kernel = load_folder(job.folder)
    try:
        return _play(job, _player(job, kernel))
    except UserError:
        raise
    except ArmFailedError as error:
        return error.failure
    except (OutOfResources, torch.OutOfMemoryError) as error:
        return Failure(Status.OUT_OF_RESOURCES, str(error))
    except (CompilationError, PTXASError) as error:
        return Failure(Status.COMPILE_ERROR, str(error))
    except Exception:  # noqa: BLE001 - a launch may raise anything; the trace becomes the arm's log
        return Failure(Status.CRASHED, traceback.format_exc())


def _player(job: ArmJob, kernel: Kernel) -> Player:
    bundle = open_bundle(kernel, job.bundles) if job.bundles else None
    if job.target is not None:
        from tuner.replay.static_player import StaticPlayer

        return StaticPlayer(kernel, job.variants, job.target, bundle)
    from tuner.replay.device_player import DevicePlayer

    return DevicePlayer(kernel, job.variants, job.seed, bundle)


def open_bundle(kernel: Kernel, folder: Path) -> Bundle:
    """The bundle of a kernel; UserError for one that a server would refuse."""
    found = read_bundle(folder, kernel.name, kernel.source_digest, triton.__version__)
    if isinstance(found, Refused):
        raise UserError(str(found))
    return found


def _play(job: ArmJob, player: Player) -> Played:
    host_s: list[float] = []
    builds: list[Build] = []
    calls = [*((None, shape) for shape in job.warm_up), *enumerate(job.steps)]
    with _recorded() as recorded:
        for step, shape in calls:
            host_s.append(player.launch(shape))
            builds += [Build(step, shape, seconds, cached) for seconds, cached in recorded]
            recorded.clear()
    warm_ups = len(job.warm_up)
    kernel_us = {shape: player.kernel_us(shape) for shape in dict.fromkeys(job.steps)}
    return Played(tuple(host_s[warm_ups:]), tuple(builds), sum(host_s[:warm_ups]), kernel_us)


@contextmanager
def _recorded() -> Iterator[list[tuple[float, bool]]]:
    """Gathers what Triton's compiler does: seconds, and whether its disk cache had the binary."""
    found: list[tuple[float, bool]] = []

    def record(*, times: knobs.CompileTimes, cache_hit: bool, **others: Any) -> None:
        found.append((times.total / 1e6, cache_hit))

    with knobs.compilation.scope():
        knobs.compilation.listener = record
        yield found
