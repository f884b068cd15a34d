# Everything here works in a fresh clone: `.venv` is built from the lock on first use.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo up test check lock bench bench-learning bench-serving

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Perennial needs Python 3.11, 3.12 or 3.13, and there is no '$(PYTHON)' here. Install one, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "Perennial needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps -e .
	touch $(STAMP)

demo: install
	$(BIN)/perennial demo $(ARGS)

up: install
	$(BIN)/perennial up $(ARGS)

test: install
	$(BIN)/python -m pytest $(ARGS)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@! grep -nE '[a-z]+://' requirements.lock || { echo "requirements.lock names an address; make it anew with 'make lock'."; exit 1; }

lock: install
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--extra demo --extra dev pyproject.toml -o requirements.lock

bench: install
	$(BIN)/python benchmarks/first_taught.py
	$(BIN)/python benchmarks/fast_labels.py
	$(BIN)/python benchmarks/intake.py
	$(BIN)/python benchmarks/learned_swaps.py
	$(BIN)/python benchmarks/swap_under_load.py
	$(BIN)/python benchmarks/fashion_mnist.py $(if $(DATA_DIR),--data-dir $(DATA_DIR))

# The published protocols, then what is measured through the product; ARGS are for the protocols.
LEARNING_ROWS = ridge_exact resnet20_mnist pretrained_stream noisy_labels mission_resnet18 mission_family \
	mission_frozen mission_small_first

bench-learning: install .venv-river
	$(BIN)/python benchmarks/learning/run.py $(if $(DATA_DIR),--data-dir $(DATA_DIR)) $(ARGS)
	for row in $(LEARNING_ROWS); do \
		$(BIN)/python benchmarks/learning/$$row.py $(if $(DATA_DIR),--data-dir $(DATA_DIR)) || exit; \
	done
	$(BIN)/python benchmarks/learning/streams.py --river .venv-river/bin/python $(if $(DATA_DIR),--data-dir $(DATA_DIR))
	$(BIN)/python benchmarks/learning/heads_cost.py
	$(BIN)/python benchmarks/learning/step_cost.py --networks mlp,small_cnn --rounds 9

.venv-river:
	$(PYTHON) -m venv .venv-river
	.venv-river/bin/python -m pip install --quiet --disable-pip-version-check river==0.26.1

bench-serving: install
	$(BIN)/python benchmarks/serving/peers.py install
	$(BIN)/python benchmarks/serving/run.py $(ARGS)
	$(BIN)/python benchmarks/serving/overload.py
	$(BIN)/python benchmarks/serving/soak.py
	$(BIN)/python benchmarks/serving/thousand_swaps.py
