"""House rules that no linter holds: what an import costs, how long a file gets."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "triton", "optuna", "sqlalchemy", "alembic", "numpy", "libcst", "pydantic", "yaml", "rich", "typer")


@pytest.mark.parametrize("module", ["tuner", "tuner.runtime", "tuner.api"])
def test_imports_stay_light(module: str) -> None:
    """A serving process pays for this import; in `tuner.lookup` the kernel's own spec is all that may load more."""
    script = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["tuner", "kernels"])
def test_files_stay_short_and_say_what_they_hold(folder: str) -> None:
    paths = [path for path in (ROOT / folder).rglob("*.py") if "_content" not in path.parts]
    assert paths
    for path in paths:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path
