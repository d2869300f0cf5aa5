# make demo    explain four photos on EfficientNet-Lite0; pictures and a page go to demo/
# make test    run the tests
# make parity  compare with PyTorch and Captum (installs PyTorch's CPU build), and with onnxruntime-training
# make serving  test igonnx serve, igonnx batch and Ray Serve with real clients and a small cluster, in one environment
# make bench   measure speed and memory beside Captum and others, and write that to docs/performance.md (an hour or two
#              on an idle machine; BENCH_OPTIONS=--quick tries it out, and writes nothing there)
# make sanitize    C++ unit tests, and a smoke test of the extension, with address, undefined-behaviour and thread
#                  sanitizers (GCC on Linux)
# make ort-matrix  the wheel on each supported minor version of onnxruntime, and on one that is too old
# make fuzz    mutate models and requests for FUZZ_SECONDS (60) in all; what crashes is left in build/fuzz
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
SERVING_VENV ?= .venv-serving
SERVING_BIN := $(SERVING_VENV)/bin
OPENVINO_VENV ?= .venv-openvino
OPENVINO_BIN := $(OPENVINO_VENV)/bin
BENCH_OPTIONS ?= --publish
FUZZ_VENV ?= .venv-fuzz
FUZZ_SECONDS ?= 60
JOBS ?= 2

# What the compiled extension is made from: a change there reinstalls the package.
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc -type f -not -path "csrc/tests/*")

.PHONY: demo test parity serving bench sanitize fuzz ort-matrix lint format docs wheel clean

demo: $(VENV)/installed
	$(BIN)/igonnx demo -o demo

test: $(VENV)/installed
	$(BIN)/pytest -n $(JOBS) --ignore=tests/parity --ignore=tests/training --ignore=tests/serving \
		--ignore=tests/scale

parity: $(PARITY_VENV)/installed $(TRAINING_VENV)/installed
	OMP_NUM_THREADS=1 $(PARITY_BIN)/pytest -n $(JOBS) tests/parity
	$(TRAINING_BIN)/pytest tests/training

serving: $(SERVING_VENV)/installed
	$(SERVING_BIN)/pytest tests/serving tests/scale

bench: $(PARITY_VENV)/bench-installed $(TRAINING_VENV)/installed $(OPENVINO_VENV)/installed
	$(PARITY_BIN)/python -m benchmarks --training-python $(TRAINING_BIN)/python \
		--openvino-python $(OPENVINO_BIN)/python $(BENCH_OPTIONS)

sanitize: $(VENV)/installed
	.ci/sanitize/run $(BIN)/python

# Not editable: only what is imported from a folder is instrumented.
fuzz: $(FUZZ_VENV)/installed
	.ci/fuzz/run $(FUZZ_VENV)/bin/python $(FUZZ_SECONDS)

ort-matrix:
	$(PYTHON) .ci/ort_matrix.py

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc examples/cpp -name '*.hpp' -o -name '*.cpp' -o -name '*.h')

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc examples/cpp -name '*.hpp' -o -name '*.cpp' -o -name '*.h')

docs: $(VENV)/installed
	$(BIN)/python -m igonnx.autodiff.operator_table docs/operators.md

wheel: $(VENV)/installed
	$(BIN)/python -m build

clean:
	rm -rf build dist demo $(VENV) $(PARITY_VENV) $(TRAINING_VENV) $(SERVING_VENV) $(OPENVINO_VENV) $(FUZZ_VENV)

$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]' \
		--config-settings=cmake.define.IGONNX_WARNINGS_AS_ERRORS=ON
	touch $@

$(SERVING_VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(SERVING_VENV)
	$(SERVING_BIN)/python -m pip install --quiet --upgrade pip
	$(SERVING_BIN)/python -m pip install --quiet --editable '.[serving-test,ray]'
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

$(FUZZ_VENV)/installed: $(SOURCES) $(shell find igonnx models -name '*.py')
	$(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(FUZZ_VENV)/bin/python -m pip install --quiet '.[cpu,cli]' atheris==3.0.0 orjson
	touch $@

$(PARITY_VENV)/bench-installed: $(PARITY_VENV)/installed
	$(PARITY_BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

# onnxruntime-openvino takes the place of onnxruntime too. OpenVINO itself, which runs files without it, may be newer.
# A benchmark does without either where there is no wheel for the machine, and says so.
$(OPENVINO_VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(OPENVINO_VENV)
	$(OPENVINO_BIN)/python -m pip install --quiet --upgrade pip
	$(OPENVINO_BIN)/python -m pip install --quiet --editable .
	-$(OPENVINO_BIN)/python -m pip install --quiet onnxruntime-openvino
	-$(OPENVINO_BIN)/python -m pip install --quiet openvino
	touch $@
