# Each target installs what it needs the first time, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

# `make test-HOST` installs tests/hosts/HOST.txt in .venv-HOST, runs all notebooks there as on this host, and then some
# tests. It uses the first of the host's Pythons that is on the path or installed by pyenv, otherwise the Python above.
HOSTS := colab kaggle newest
PYTHONS_colab := 3.13
PYTHONS_kaggle := 3.12
PYTHONS_newest := 3.14 3.13 3.12
TESTS_colab := tests/widgets
TESTS_kaggle := tests
TESTS_newest := tests
HOST_PYTHON = $(shell for version in $(PYTHONS_$*); do \
	for python in python$$version $(HOME)/.pyenv/versions/$$version.*/bin/python; do \
	$$python --version > /dev/null 2>&1 && echo $$python && exit; done; done; echo $(PYTHON))

# `make lesson SEED=1` draws other images and initial weights.
SEED ?= 0

# What the benchmarks compare with, and Ray, have environments of their own.
BENCH := .venv-bench
BENCH_INSTALLED := $(BENCH)/installed
ARCHIVE ?= data/tiny-imagenet-200.zip
RAY := .venv-ray
RAY_INSTALLED := $(RAY)/installed

# CPU=1 installs PyTorch without CUDA, from PyTorch's own index. The other requirements are the same.
CPU ?=
define install_torch
	$(if $(CPU),$(1)/bin/pip install --quiet --upgrade $(shell grep -E '^torch(vision)?\b' $(2)) \
		--index-url https://download.pytorch.org/whl/cpu)
endef

# Two tests at a time with one torch thread each are faster than one after the other with two.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2
NBVAL := $(PYTEST) --dist loadscope --quiet --nbval-lax --nbval-current-env --nbval-cell-timeout=300

# With a browser, the solutions run in JupyterLab, where the test is as strict as nbval.
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
BROWSER_TESTS := $(if $(CHROMIUM),tests/browser/test_lab.py) # first, as they take longest

.PHONY: help lesson test quick test-gpu test-ray $(HOSTS:%=test-%) lab notebooks bench clean
.PHONY: .venv-newest/installed # what is newest may change at any time

help:
	@echo "make lesson      train AlexNet and ResNet over learning rates, batch sizes and weight decays, on small images"
	@echo "make lab         open the first notebook in JupyterLab"
	@echo "make notebooks   build the notebooks from notebooks/src"
	@echo
	@echo "make quick       check style, notebooks and the tests of what you changed, in under a minute"
	@echo "make test        check style and types, run all tests and notebooks; the notebooks in a browser if there is one"
	@echo "make test-colab  run all notebooks with the versions of Google Colab, installed as Colab does"
	@echo "make test-kaggle run all notebooks and tests with the versions of Kaggle"
	@echo "make test-newest run all notebooks and tests with the newest version of everything"
	@echo "make test-gpu    test the GPU if there is one, and run all notebooks on a pretended T4 and A100"
	@echo "make test-ray    test the search on Ray"
	@echo "make bench       measure images per second; needs ARCHIVE=$(ARCHIVE)"
	@echo "make clean       remove the virtual environments; data and results stay"
	@echo
	@echo "CPU=1 installs PyTorch without CUDA, which is much smaller: make CPU=1 lesson"
	@echo "PYTHON=python3.12 chooses the Python for a new environment"

lesson: $(INSTALLED)
	@$(BIN)/python -m cnnlesson exercise --model resnet18 alexnet --data easy-shapes --images 1000 --val-fraction 0.6 \
		--epochs 2 --dropout 0 --lr 0.1 0.01 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 \
		--decay-at-best 0 0.05 --seed $(SEED) --out results/lesson-$(SEED)
	@echo
	@echo "These images are easy, so that networks learn within two epochs. For real ones, run"
	@echo "  $(BIN)/python -m cnnlesson exercise --model alexnet resnet18 --data tiny-imagenet --epochs 5 \\"
	@echo "      --lr 0.1 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 --decay-at-best 0 0.05"
	@echo "It downloads 248 MB. Add --forecast to see how long it takes, or --fit 60 to see what fits into an hour."

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) --dist worksteal -m "not serial and not thorough" $(BROWSER_TESTS) tests
	$(BIN)/python -m pytest -m "serial and not thorough"
	CNNLESSON_TINY=1 CNNLESSON_CHECKS=untouched $(NBVAL) notebooks/*.ipynb
ifeq ($(CHROMIUM),)
	@echo "There is no Chromium here, so no notebook is tested in a browser. Debian's package is called chromium."
	CNNLESSON_TINY=1 CNNLESSON_CHECKS=strict $(NBVAL) notebooks/solutions/*.ipynb
endif

quick: $(INSTALLED)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	OMP_NUM_THREADS=1 $(BIN)/python tests/quick.py

test-gpu: $(INSTALLED)
	$(PYTEST) --dist worksteal tests/test_pretend_gpu.py tests/test_gpu.py tests/test_notebooks_on_gpu.py

test-ray: $(RAY_INSTALLED)
	$(RAY)/bin/python -m pytest -m ray tests/search/test_ray.py

$(HOSTS:%=test-%): test-%: $(INSTALLED) .venv-%/installed
	$(BIN)/python tests/hosts/run.py .venv-$*/bin/python $(TESTS_$*)

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks/01_data_splitting.ipynb

notebooks: $(INSTALLED)
	$(BIN)/python notebooks/build.py

# torchvision's training recipe is in its repository, not in its package.
bench: $(BENCH_INSTALLED)
	@test -d $(BENCH)/vision || git clone --quiet --depth 1 --branch v0.26.0 https://github.com/pytorch/vision $(BENCH)/vision || true
	$(BENCH)/bin/python benchmarks/throughput.py --archive $(ARCHIVE) --out results/throughput --torchvision $(BENCH)/vision

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "Python 3.11 to 3.14 is needed: make PYTHON=/path/to/python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(call install_torch,$(VENV),requirements.txt)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

$(BENCH_INSTALLED): requirements.txt benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(call install_torch,$(BENCH),requirements.txt)
	$(BENCH)/bin/pip install --quiet --requirement requirements.txt --requirement benchmarks/requirements.txt
	$(BENCH)/bin/pip install --quiet --no-deps --editable .
	@touch $@

$(RAY_INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(RAY)
	$(call install_torch,$(RAY),requirements.txt)
	$(RAY)/bin/pip install --quiet --requirement requirements.txt ray==2.60.0
	$(RAY)/bin/pip install --quiet --no-deps --editable .
	@touch $@

$(HOSTS:%=.venv-%/installed): .venv-%/installed: tests/hosts/%.txt
	$(HOST_PYTHON) -m venv .venv-$*
	$(call install_torch,.venv-$*,$<)
	.venv-$*/bin/pip install --quiet --upgrade --upgrade-strategy eager --requirement $<
	@touch $@

clean:
	rm -rf $(VENV) $(HOSTS:%=.venv-%) $(BENCH) $(RAY)
