from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.workload import Workload, load_workload


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders of their own for emitted variants and for Triton's binaries, shared by the tests of this folder."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE", str(folder / "tuner"))
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        yield folder


@pytest.fixture(scope="session")
def conversation() -> Workload:
    return load_workload("azure_conversation")
