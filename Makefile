# On a fresh machine with Python 3.11 or later: `make demo`, `make test`. Both set up the virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: demo test lint torture readme picture clean

demo: $(VENV)/ready  ## train, infer and evaluate on drawn faces
	$(BIN)/python train.py
	$(BIN)/python inference.py
	$(BIN)/python evaluation.py

test: $(VENV)/ready lint
	$(BIN)/python -m pytest -q -n auto

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

torture: $(VENV)/ready  ## all faults, often: a quarter of an hour
	$(BIN)/python tests/torture.py

readme: $(VENV)/ready  ## write the settings tables of the README anew
	$(BIN)/python tests/readme.py

picture: $(VENV)/ready  ## take the picture of the README anew, of the last demo; wants Chromium
	PYTHONPATH=. $(BIN)/python docs/picture.py

$(VENV)/ready: requirements.txt requirements-extras.txt tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or later, found " + sys.version.split()[0] + "; make PYTHON=python3.11 names another")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r tests/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) demo
