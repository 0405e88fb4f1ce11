# make demo   build the demo bundle, classify with it, print its accuracy against FP32
# make test   lint, type-check, test
# make ros2   adds ROS 2 to .venv, for x86-64: the tests of examples/ros2 are skipped without
# All set up .venv first; make setup does only that. PYTHON chooses the interpreter (3.10 to 3.13).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: setup demo test ros2 clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "edge-resnet needs Python 3.10 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[build,rtx,plots,dev,parity]'
	touch $(READY)

demo: setup
	$(BIN)/edge-resnet build --precision int8 -o fashion-mnist.edge
	$(BIN)/edge-resnet classify fashion-mnist.edge --top 2 edge_resnet/demo/test/*/*07.png

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p edge_resnet
	$(BIN)/python -m pytest

ros2: setup
	$(BIN)/python -m pip install --quiet --requirement examples/ros2/requirements.txt

clean:
	rm -rf $(VENV) fashion-mnist.edge build *.egg-info
