# make demo    explain four photos on EfficientNet-Lite0; pictures and a page go to demo/
# make test    run the tests
# make parity  compare with PyTorch and Captum (installs PyTorch's CPU build), and with onnxruntime-training
# make lint    formatting, style and types
# make docs    write docs/operators.md anew, which lists how each operator is differentiated
# Each creates the virtual environment it needs; PYTHON chooses the interpreter (3.11 or later; onnxruntime-training
# ends at 3.12).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PARITY_VENV ?= .venv-parity
PARITY_BIN := $(PARITY_VENV)/bin
TRAINING_VENV ?= .venv-training
TRAINING_BIN := $(TRAINING_VENV)/bin
JOBS ?= 2

# What the compiled extension is made from: a change there reinstalls the package.
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc -type f)

.PHONY: demo test parity lint format docs wheel clean

demo: $(VENV)/installed
	$(BIN)/igonnx demo -o demo

test: $(VENV)/installed
	$(BIN)/pytest -n $(JOBS) --ignore=tests/parity --ignore=tests/training

parity: $(PARITY_VENV)/installed $(TRAINING_VENV)/installed
	$(PARITY_BIN)/pytest tests/parity
	$(TRAINING_BIN)/pytest tests/training

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -name '*.hpp' -o -name '*.cpp' -o -name '*.h')

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc -name '*.hpp' -o -name '*.cpp' -o -name '*.h')

docs: $(VENV)/installed
	$(BIN)/python -m igonnx.autodiff.operator_table docs/operators.md

wheel: $(VENV)/installed
	$(BIN)/python -m build

clean:
	rm -rf build dist demo $(VENV) $(PARITY_VENV) $(TRAINING_VENV)

$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(PARITY_VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_BIN)/python -m pip install --quiet --upgrade pip
	$(PARITY_BIN)/python -m pip install --quiet torch==2.13.0
	$(PARITY_BIN)/python -m pip install --quiet --editable '.[parity]'
	touch $@

# onnxruntime-training takes the place of onnxruntime: it cannot share a virtual environment with it.
$(TRAINING_VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(TRAINING_VENV)
	$(TRAINING_BIN)/python -m pip install --quiet --upgrade pip
	$(TRAINING_BIN)/python -m pip install --quiet --editable '.[training]' 'pytest>=8.2'
	touch $@
