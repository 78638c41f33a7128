# `make demo` and `make test` do all set-up themselves; they need Python 3.11 or 3.12 and the network for packages.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := build/demo
# The oldest supported release, under which the tests that face Triton run too; the environment has the newest.
OLDEST_TRITON := 3.6.0

.PHONY: demo test lint test-oldest-triton test-gpu wheel clean

demo: $(INSTALLED)
	mkdir -p $(DEMO)
	$(BIN)/tuner run fused_inv_rope_fp8_quant --target cuda:90 --trials 6 --db sqlite:///$(DEMO)/tuner.db
	$(BIN)/tuner export-config fused_inv_rope_fp8_quant --db sqlite:///$(DEMO)/tuner.db -o $(DEMO)/winners.json
	$(BIN)/tuner show fused_inv_rope_fp8_quant --db sqlite:///$(DEMO)/tuner.db

test: lint test-oldest-triton
	$(BIN)/python -m pytest -n 2 -m "not gpu"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-oldest-triton: $(INSTALLED) .triton-releases/$(OLDEST_TRITON)
	PYTHONPATH=.triton-releases/$(OLDEST_TRITON) $(BIN)/python -m pytest -n 2 -m "triton and not gpu"

# On a machine with a GPU, in an environment of your own that has torch for it and `pip install -e '.[dev]'`.
test-gpu:
	$(PYTHON) -m pytest -m gpu tests/gpu

wheel: $(INSTALLED)
	$(BIN)/python -m build --wheel

$(INSTALLED): pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints-cpu.txt --editable '.[dev]'
	touch $@

.triton-releases/%: | $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ triton==$*

clean:
	rm -rf .venv .triton-releases build dist
