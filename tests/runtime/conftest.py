from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_driver import StubDriver, stub_driver


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders of their own for emitted variants and for Triton's binaries; no store and no bundle from outside."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE", str(folder / "tuner"))
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        patch.setenv("TUNER_DB", f"sqlite:///{folder / 'none.db'}")
        patch.delenv("TUNER_BUNDLE", raising=False)
        yield folder


@pytest.fixture
def stub() -> Iterator[StubDriver]:
    """A driver without a GPU: compiles are real, launches are noted."""
    with stub_driver() as active:
        yield active
