# make demo    from labelled text to a tested int8 bundle, on real data
# make test    the tests
# make peers   environments of other engines, for `compress bench --against`
# make bench-peers   potstill beside them: runs/peers/report.json
# make bench-compression   what pruning, quantizing and the rest gain and cost: runs/compression/report.json
# They create the environment first; PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUNTIME := .venv-runtime
PEERS := openvino ctranslate2 optimum
COMPRESSED ?= recipes/sentiment.yaml recipes/trec6.yaml

.PHONY: demo test check runtime-test peers bench-peers bench-compression clean

demo: $(READY)
	$(BIN)/compress run recipes/sentiment.yaml

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto

# The tests of what apps embed, in an environment without torch.
runtime-test: $(RUNTIME)/.ready
	$(RUNTIME)/bin/python -m pytest -m runtime

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy recipes
	$(BIN)/lint-imports

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,cpu,dev]'
	touch $@

$(RUNTIME)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RUNTIME)
	$(RUNTIME)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu]' pytest hypothesis
	touch $@

# Each peer alone in its environment: what they need of each other's packages does not fit together.
peers: $(PEERS:%=.peers/%/.ready)

.peers/%/.ready: bench/peers/requirements/%.txt
	$(PYTHON) -m venv .peers/$*
	.peers/$*/bin/python -m pip install --quiet --requirement $<
	touch $@

bench-peers: $(READY) peers
	$(BIN)/python -m compress.against_peers runs/peers

bench-compression: $(READY)
	$(BIN)/python -m compress.compression runs/compression $(COMPRESSED)

clean:
	rm -rf $(VENV) $(RUNTIME) .peers *.egg-info
