"""Each bundled kernel has a space that fits it, and each space a kernel."""

from pathlib import Path

import pytest
from kernel_examples import SCALE_ROWS

from tuner.catalog import content_root, load_folder
from tuner.session import load_fitting_space, whole_shapes

FOLDERS = [*sorted(path.parent for path in (content_root() / "kernels").glob("*/spec.py")), SCALE_ROWS]
SPACES = sorted((content_root() / "search_spaces").glob("*.yaml"))


def test_every_space_belongs_to_a_kernel() -> None:
    assert SPACES
    assert {path.stem for path in SPACES} <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_space_fits_its_kernel(folder: Path) -> None:
    kernel = load_folder(folder)
    space = load_fitting_space(kernel, None)
    assert space.kernel == kernel.name
    assert space.baseline == kernel.spec.baseline_variant
    assert whole_shapes(kernel, space, [])
