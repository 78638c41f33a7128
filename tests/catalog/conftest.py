import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "examples"))  # kernel_examples: a kernel to try things on
