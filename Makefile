# make quickstart   everything once, on synthetic data: install, slice, train both stages, evaluate
# make test         install, then the whole test suite; what needs Chromium, npm or the demo's
#                   packages skips where they are missing (TEST_FLAGS=--no-skips: fails)
# make lint         ruff's checks, its formatting, mypy
# make demo         the demo's packages into .venv
# A second call reuses .venv; `make clean` removes it and what quickstart wrote.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: quickstart test lint demo install clean

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# On a busy machine, threads that spin while they wait stop each other.
export OMP_WAIT_POLICY ?= PASSIVE
# Everything quickstart writes; git ignores it.
OUT := quickstart
# Processes that share the tests, file by file, each with one thread and some GB of memory.
TEST_JOBS ?= 2

install: $(VENV)/.installed

# --no-compile: Python compiles what is imported, when it is; pip would compile all there is.
PIP := $(RUN) -m pip install --quiet --no-compile --disable-pip-version-check

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 to 3.13 is needed, this is " + sys.version.split()[0] + "; run: make PYTHON=python3.11" if not (3, 10) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-mpi.txt $(VENV)/.installed
	$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-demo: requirements-demo.txt $(VENV)/.installed
	$(PIP) -r requirements-demo.txt
	@touch $@

demo: $(VENV)/.installed-demo

quickstart: install
	rm -rf $(OUT)
	$(RUN) data/preprocess/synthetic.py --data-root $(OUT)/data --frames 150
	$(RUN) data/preprocess/h36m.py --n-frames 27 --data-root $(OUT)/data --dt-file synthetic.pkl
	$(RUN) train_firststage.py --config configs/quickstart/first.yaml --new-checkpoint $(OUT)/stage1
	$(RUN) train_twostage.py --config configs/quickstart/tiny.yaml --new-checkpoint $(OUT)/stage2 \
		--stage1-checkpoint $(OUT)/stage1/best_epoch.pth.tr
	$(RUN) train.py --eval-only --config configs/quickstart/tiny.yaml --checkpoint $(OUT)/stage2 \
		--report $(OUT)/report.json
	@printf '%s\n' '' 'All of it works. What to try next:' \
		'  one of these motions as a film: $(RUN) data/preprocess/visualize.py $(OUT)/data/synthetic.pkl --output walk.mp4' \
		'  a part left out: $(RUN) train_twostage.py --config configs/quickstart/tiny.yaml --set graph=none \' \
		'    --new-checkpoint $(OUT)/no_graph --stage1-checkpoint $(OUT)/stage1/best_epoch.pth.tr' \
		'  a video, by weights that learnt real motion: make demo, then $(RUN) demo/vis.py --video my_video.mp4' \
		'  real data: README.md, Data; docs/benchmark.md'

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(TEST_JOBS) --dist loadfile $(TEST_FLAGS)

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf $(VENV) $(OUT)
