# make demo   build the demo bundle, classify with it, print its accuracy against FP32
# make test   lint, type-check, test
# make docs         the documentation as a site, in .site; without a network
# make test-long     the deepest networks, 200 killed builds, and what takes minutes
# make fuzz          1,000,000 inputs to the parsers (tests/fuzz/README.md); make fuzz-slice takes a minute
# make audit      licences of what is installed, then known vulnerabilities, for which it needs a network (docs/licences.md)
# make test-gpu      the tests that need an NVIDIA GPU, and a record of the machine: RECORD=docs/tested-on/NAME.json
# make test-pycuda   the real PyCUDA, built here, on a double of CUDA's driver: needs CUDA's headers, CUDA_ROOT=/usr/local/cuda
# make test-pythons  the runtime's tests under each of PYTHONS that is here (pyenv: PYENV_VERSION=3.11:3.10:3.12:3.13)
# make test-arm64    the runtime on Debian's arm64, emulated: needs apt and qemu-user
# make ros2          adds ROS 2 to .venv, for x86-64: the tests of examples/ros2 are skipped without
# All set up .venv first, make demo only what it needs of it; make setup does only that. PYTHON chooses the interpreter (3.10 to 3.13).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# What is never imported is never compiled: two gigabytes of packages, of which a command needs a part.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
# It builds and runs bundles already; tests, plots and the rest are not there yet.
BUILDS := $(VENV)/builds

RECORD ?= docs/tested-on/this-machine.json
CUDA_ROOT ?= /usr/local/cuda
PYCUDA := .venv-pycuda
PYTHONS ?= python3.10 python3.12 python3.13
RUNTIME := .runtime
AUDIT := .venv-audit

.PHONY: setup demo test types tests test-long fuzz fuzz-slice audit test-gpu test-pycuda test-pythons test-arm64 runtime ros2 docs clean

setup: $(READY)

$(BUILDS): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "edge-resnet needs Python 3.10 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[build,rtx]'
	touch $(BUILDS)

$(READY): $(BUILDS)
	$(INSTALL) --editable '.[build,rtx,plots,tune,camera,web,trust,registry,oci,mlflow,ray,monitor,loadgen,dev,docs,parity]'
	touch $(READY)

demo: $(BUILDS)
	$(BIN)/edge-resnet build --precision int8 -o fashion-mnist.edge
	$(BIN)/edge-resnet classify fashion-mnist.edge --top 2 edge_resnet/demo/test/*/*07.png

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --jobs 2 types tests

types: setup
	$(BIN)/mypy -p edge_resnet

tests: setup
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m 'not long'

test-long: setup
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m long

fuzz: setup
	$(INSTALL) --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/run.py --inputs 1000000

fuzz-slice: setup
	$(BIN)/python -m pytest tests/fuzz --numprocesses 2 --dist loadfile

audit: setup
	$(BIN)/python tests/support/licences.py
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit
	$(AUDIT)/bin/pip-audit --skip-editable \
	    --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

test-gpu: setup
	$(BIN)/python -m pytest tests/gpu --record $(RECORD)
	$(BIN)/python benchmarks/tested_on.py

# PyCUDA links to the driver, which is not here: it is built against the double that the tests then run it on.
test-pycuda: setup
	$(PYTHON) -m venv --without-pip $(PYCUDA)
	mkdir -p $(PYCUDA)/double
	cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o $(PYCUDA)/double/libcuda.so tests/support/libcuda_double.c -ldl
	printf 'CUDA_ENABLE_CURAND = False\n' >$(PYCUDA)/.aksetup-defaults.py # which PyCUDA's setup reads in the home folder
	HOME=$(abspath $(PYCUDA)) LIBRARY_PATH=$(abspath $(PYCUDA)/double) CUDA_ROOT=$(CUDA_ROOT) CPATH=$(CUDA_ROOT)/include \
	    $(BIN)/python -m pip --python $(PYCUDA)/bin/python install --quiet --constraint constraints.txt \
	    --editable '.[build,pycuda,cuda,dev]'
	$(PYCUDA)/bin/python -m pytest tests/engines/cuda

# What a device gets: the wheel, and a bundle that was built elsewhere.
runtime: setup
	rm -rf build $(RUNTIME)/wheel # setuptools would take what is left there for part of the package
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(RUNTIME)/wheel .
	$(BIN)/edge-resnet build --precision int8 -o $(RUNTIME)/demo.edge

test-pythons: runtime
	tests/runtime/pythons.sh $(RUNTIME) $(PYTHONS)

test-arm64: runtime
	tests/runtime/arm64.sh $(RUNTIME) $(BIN)/python

# Material tells of its successor on every run. Not --quiet: what is not said is not counted by --strict.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

ros2: setup
	$(BIN)/python -m pip install --quiet --no-compile --requirement examples/ros2/requirements.txt

clean:
	rm -rf $(VENV) $(PYCUDA) $(RUNTIME) $(AUDIT) .site fashion-mnist.edge build *.egg-info
