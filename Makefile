# On a fresh machine with Python 3.11 or later: `make demo`, `make test`. Both set up the virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SAGEMAKER := $(VENV)/sagemaker
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: demo test lint sagemaker torture docs picture clean

demo: $(VENV)/ready  ## train, infer and evaluate on drawn faces
	$(BIN)/python train.py
	$(BIN)/python inference.py
	$(BIN)/python evaluation.py

test: $(VENV)/ready lint sagemaker
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder  # what a file makes for its tests is made once

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What builds its launchers: without it their tests are skipped.
COMPILES = echo '\#include <Python.h>' | $(CC) -fsyntax-only -xc - 2>/dev/null \
	-I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')
sagemaker: $(VENV)/ready  ## SageMaker's own launchers, for the tests
	@if [ "$$(uname)" = Linux ] && $(COMPILES); then $(MAKE) -s $(SAGEMAKER)/ready; else \
	echo "note: the tests on SageMaker's launchers are skipped: they want Linux, a C compiler and Python.h"; fi

$(SAGEMAKER)/ready: $(VENV)/ready tests/requirements-sagemaker.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(SAGEMAKER)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$(echo $(SAGEMAKER)/lib/python*/site-packages)/around.pth
	printf 'numpy\nscipy\n' | $(BIN)/uv pip install --quiet --python $(SAGEMAKER) --excludes - -r tests/requirements-sagemaker.txt
	touch $@

torture: $(VENV)/ready  ## all faults, often: hours; TORTURE="--share 0.1 --only FOLDS" tries a part
	$(BIN)/python tests/torture.py $(TORTURE)

docs: $(VENV)/ready  ## write docs/settings.md anew, from the settings
	$(BIN)/python tests/docs/settings_page.py

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
