"""The implementations of bundled kernels in Triton's interpreter, at shapes and with tiles of the tests' own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuner.catalog import load_folder
from tuner.compile.module import load_variant
from tuner.processes import WorkerPool, result
from tuner.records import Agreement, Config, FrozenMapping, Shape, Variant
from tuner.verify.check import check_cases, make_cases
from tuner.verify.interpreter import patch_conversions

TIMEOUT_S = 250.0


@dataclass(frozen=True)
class Job:
    """One config of the kernel in a folder, at one shape; on random inputs alone, or on the edges too."""

    folder: Path
    config: Config
    shape: Shape
    edges: bool = True


def tile_or(baseline: str, parameters: Mapping[str, int] | None) -> Config:
    """The tile implementation with these parameters, or the baseline's without any."""
    return Config("tile", FrozenMapping(parameters)) if parameters else Config(baseline)


def agreements(interpreter: WorkerPool, jobs: Sequence[Job]) -> list[Agreement]:
    """What came of each job."""
    found = result(interpreter.submit(_check, jobs, timeout_s=TIMEOUT_S))
    assert isinstance(found, list), found.log
    assert len(found) == len(jobs)
    return found


@np.errstate(all="ignore")  # as on a GPU: what overflows may well be selected away
def _check(jobs: Sequence[Job]) -> list[Agreement]:
    """The interpreter's side."""
    patch_conversions()
    found = []
    for seed, job in enumerate(jobs):
        kernel = load_folder(job.folder)
        cases = make_cases(kernel, job.shape, "cpu", seed)[: None if job.edges else 1]
        loaded = load_variant(kernel, Variant(kernel.name, job.config))
        outputs = kernel.spec.make_outputs(job.shape, "cpu")
        found.append(check_cases(kernel, loaded, job.config, job.shape, cases, outputs))
    return found
