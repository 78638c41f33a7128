import sys
from pathlib import Path

tests = Path(__file__).parents[1]
sys.path.append(str(tests / "store"))  # store_examples: records of every kind
sys.path.append(str(tests / "examples"))  # kernel_examples: a kernel to try things on
