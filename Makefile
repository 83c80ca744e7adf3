# Each target installs what it needs the first time, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

# Colab has Python 3.13. Use it if it is on the path or installed by pyenv, otherwise the Python above.
COLAB := .venv-colab
COLAB_PYTHON ?= $(shell for python in python3.13 $(HOME)/.pyenv/versions/3.13*/bin/python $(PYTHON); do \
	$$python --version > /dev/null 2>&1 && echo $$python && break; done)
COLAB_INSTALLED := $(COLAB)/installed

# What the benchmarks compare with, and Ray, have environments of their own.
BENCH := .venv-bench
BENCH_INSTALLED := $(BENCH)/installed
ARCHIVE ?= data/tiny-imagenet-200.zip
RAY := .venv-ray
RAY_INSTALLED := $(RAY)/installed

# CPU=1 installs PyTorch without CUDA, from PyTorch's own index. The other requirements are the same.
CPU ?=
TORCH := $(shell grep -E '^torch(vision)?==' requirements.txt)
define install_torch
	$(if $(CPU),$(1)/bin/pip install --quiet $(TORCH) --index-url https://download.pytorch.org/whl/cpu)
endef

# Two tests at a time with one torch thread each are faster than one after the other with two.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2
NBVAL := $(PYTEST) --dist loadscope --quiet --nbval-lax --nbval-current-env --nbval-cell-timeout=300

# With a browser, the solutions run in JupyterLab, where the test is as strict as nbval.
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: help lesson test quick test-ray test-colab lab notebooks bench clean

help:
	@echo "make lesson      train AlexNet and ResNet over learning rates, batch sizes and weight decays, on small images"
	@echo "make lab         open the first notebook in JupyterLab"
	@echo "make notebooks   build the notebooks from notebooks/src"
	@echo
	@echo "make quick       check style, notebooks and the tests of what you changed, in under a minute"
	@echo "make test        check style and types, run all tests and notebooks; the notebooks in a browser if there is one"
	@echo "make test-colab  run all notebooks with the versions of Google Colab, installed as Colab does"
	@echo "make test-ray    test the search on Ray"
	@echo "make bench       measure images per second; needs ARCHIVE=$(ARCHIVE)"
	@echo "make clean       remove the virtual environments; data and results stay"
	@echo
	@echo "CPU=1 installs PyTorch without CUDA, which is much smaller: make CPU=1 lesson"
	@echo "PYTHON=python3.12 chooses the Python for a new environment"

lesson: $(INSTALLED)
	@$(BIN)/python -m cnnlesson exercise --model alexnet resnet18 --data shapes --images 500 --val-fraction 0.2 \
		--epochs 3 --dropout 0 --lr 0.1 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 \
		--decay-at-best 0 0.05 --out results/lesson
	@echo
	@echo "With so few images you see how the exercise works, not how good the networks are. For real images, run"
	@echo "  $(BIN)/python -m cnnlesson exercise --model alexnet resnet18 --data tiny-imagenet --epochs 5 \\"
	@echo "      --lr 0.1 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 --decay-at-best 0 0.05"
	@echo "It downloads 248 MB. Add --forecast to see how long it takes, or --fit 60 to see what fits into an hour."

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) --dist worksteal -m "not serial"
	$(BIN)/python -m pytest -m serial
	CNNLESSON_TINY=1 CNNLESSON_CHECKS=untouched $(NBVAL) notebooks/*.ipynb
ifneq ($(CHROMIUM),)
	$(PYTEST) --dist worksteal --quiet tests/browser/test_lab.py
else
	@echo "There is no Chromium here, so no notebook is tested in a browser. Debian's package is called chromium."
	CNNLESSON_TINY=1 CNNLESSON_CHECKS=strict $(NBVAL) notebooks/solutions/*.ipynb
endif

quick: $(INSTALLED)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	OMP_NUM_THREADS=1 $(BIN)/python tests/quick.py

test-ray: $(RAY_INSTALLED)
	$(RAY)/bin/python -m pytest -m ray tests/search/test_ray.py

test-colab: $(INSTALLED) $(COLAB_INSTALLED)
	$(BIN)/python tests/colab/run.py $(COLAB)/bin/python

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks/01_data_splitting.ipynb

notebooks: $(INSTALLED)
	$(BIN)/python notebooks/build.py

# torchvision's training recipe is in its repository, not in its package.
bench: $(BENCH_INSTALLED)
	@test -d $(BENCH)/vision || git clone --quiet --depth 1 --branch v0.26.0 https://github.com/pytorch/vision $(BENCH)/vision || true
	$(BENCH)/bin/python benchmarks/throughput.py --archive $(ARCHIVE) --out results/throughput --torchvision $(BENCH)/vision

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(call install_torch,$(VENV))
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

$(BENCH_INSTALLED): requirements.txt benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(call install_torch,$(BENCH))
	$(BENCH)/bin/pip install --quiet --requirement requirements.txt --requirement benchmarks/requirements.txt
	$(BENCH)/bin/pip install --quiet --no-deps --editable .
	@touch $@

$(RAY_INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(RAY)
	$(call install_torch,$(RAY))
	$(RAY)/bin/pip install --quiet --requirement requirements.txt ray==2.60.0
	$(RAY)/bin/pip install --quiet --no-deps --editable .
	@touch $@

$(COLAB_INSTALLED): tests/colab/requirements.txt
	$(COLAB_PYTHON) -m venv $(COLAB)
	$(call install_torch,$(COLAB))
	$(COLAB)/bin/pip install --quiet --requirement tests/colab/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) $(COLAB) $(BENCH) $(RAY)
