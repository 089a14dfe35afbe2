# make demo    from labelled text to a tested int8 bundle, on real data
# make test    the tests
# Both create the environment first; PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUNTIME := .venv-runtime

.PHONY: demo test check runtime-test clean

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

clean:
	rm -rf $(VENV) $(RUNTIME) *.egg-info
