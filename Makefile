# The two commands: `make lesson` and `make test`. Each installs what it needs the first time, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

# Colab has Python 3.13: looked for on the path and where pyenv keeps it; without one, the Python above has to do.
COLAB := .venv-colab
COLAB_PYTHON ?= $(shell for python in python3.13 $(HOME)/.pyenv/versions/3.13*/bin/python $(PYTHON); do \
	$$python --version > /dev/null 2>&1 && echo $$python && break; done)
COLAB_INSTALLED := $(COLAB)/installed

# What others train with, to compare with, in an environment of its own.
BENCH := .venv-bench
BENCH_INSTALLED := $(BENCH)/installed
ARCHIVE ?= data/tiny-imagenet-200.zip

# Two tests at a time, each with one thread of torch's, are sooner done than one after the other with two.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2
NBVAL := $(PYTEST) --dist loadscope --quiet --nbval-lax --nbval-current-env --nbval-cell-timeout=300

# With a browser the solutions run in JupyterLab, cell for cell as strictly as with nbval.
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: help lesson test test-colab lab notebooks bench clean

help:
	@echo "make lesson     the exercise on small images: AlexNet and ResNet over learning rates, batch sizes, decays"
	@echo "make test       style, tests, and all notebooks from top to bottom on small images, in a browser where there is one"
	@echo "make test-colab all notebooks again, with Google Colab's versions of everything, installed as there"
	@echo "make lab        JupyterLab with the first notebook, in the browser"
	@echo "make notebooks  build the notebooks from notebooks/src"
	@echo "make bench      images a second beside what others train with; ARCHIVE=data/tiny-imagenet-200.zip"
	@echo "make clean      remove the virtual environments (data and results stay)"

lesson: $(INSTALLED)
	@$(BIN)/python -m cnnlesson exercise --model alexnet resnet18 --data shapes --images 500 --val-fraction 0.2 \
		--epochs 3 --dropout 0 --lr 0.1 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 \
		--decay-at-best 0 0.05 --workers 2 --out results/lesson
	@echo
	@echo "So few images show how the exercise works, not how well the networks do. For real images type"
	@echo "  $(BIN)/python -m cnnlesson exercise --model alexnet resnet18 --data tiny-imagenet --epochs 5 \\"
	@echo "      --lr 0.1 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 --decay-at-best 0 0.05"
	@echo "(it downloads 248 MB; with --forecast it says first how long it takes, with --fit 60 what fits into an hour)."

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) --dist worksteal -m "not serial"
	$(BIN)/python -m pytest -m serial
	CNNLESSON_TINY=1 CNNLESSON_CHECKS=untouched $(NBVAL) notebooks/*.ipynb
ifneq ($(CHROMIUM),)
	$(PYTEST) --dist worksteal --quiet tests/browser/test_lab.py
else
	@echo "No Chromium is here, so no notebook is tried in a browser: install Debian's package chromium for that."
	CNNLESSON_TINY=1 CNNLESSON_CHECKS=strict $(NBVAL) notebooks/solutions/*.ipynb
endif

test-colab: $(INSTALLED) $(COLAB_INSTALLED)
	$(BIN)/python tests/colab/run.py $(COLAB)/bin/python

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks/01_data_splitting.ipynb

notebooks: $(INSTALLED)
	$(BIN)/python notebooks/build.py

# torchvision's own training recipe is in its repository, not in its package.
bench: $(BENCH_INSTALLED)
	@test -d $(BENCH)/vision || git clone --quiet --depth 1 --branch v0.26.0 https://github.com/pytorch/vision $(BENCH)/vision || true
	$(BENCH)/bin/python benchmarks/throughput.py --archive $(ARCHIVE) --out results/throughput --torchvision $(BENCH)/vision

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

$(BENCH_INSTALLED): requirements.txt benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --requirement requirements.txt --requirement benchmarks/requirements.txt
	$(BENCH)/bin/pip install --quiet --no-deps --editable .
	@touch $@

$(COLAB_INSTALLED): tests/colab/requirements.txt
	$(COLAB_PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/pip install --quiet --requirement tests/colab/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) $(COLAB) $(BENCH)
