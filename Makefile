# make demo      set up, train on instrument notes, write demo/report.html
# make test      set up, run the tests        make test-all   the slow ones too, with coverage
# make check     lint, format, types          make bench      the benchmarks, into docs/results
PY ?= python3
V := .venv/bin
PIP := $(V)/python -m pip install --disable-pip-version-check -q -c constraints.txt
PYTEST := $(V)/python -m pytest -q -n 2 --timeout 600
BENCHMARKS := code_speed train_step codebook_search wave_sampling token_collapse \
  hierarchy front_end quality_per_minute families discriminators
.DEFAULT_GOAL := demo
.DELETE_ON_ERROR:

$(V)/python:
	@command -v $(PY) >/dev/null || { echo "no $(PY) here: install Python 3.11 or newer, or say make PY=/path/to/python3"; exit 1; }
	@$(PY) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PY) is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PY) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PY) has no venv module: apt-get install python3-venv"; exit 1; }
	$(PY) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/.run: constraints.txt pyproject.toml | $(V)/python
	$(PIP) -e '.[train,plot,data]'
	$(PIP) --no-deps tinysoundfont  # its PyAudio, needed for loudspeakers only, would have to be compiled
	@touch $@

.venv/.test: .venv/.run
	$(PIP) -e '.[train,plot,data,interop,dev]'
	$(PIP) --no-deps encodec descript-audio-codec stable-audio-tools \
	  acids-rave cached-conv gin-config  # what they need for files and trainings only stays out
	$(PIP) pystoi zimtohrli
	@if command -v c++ >/dev/null && $(PIP) -e '.[perceptual]'; then :; else \
	  echo "pesq and ViSQOL are left out, they are compiled: apt-get install g++ python3-dev, then make again"; fi
	@touch $@

demo: .venv/.run
	$(V)/audiovae demo --out demo --force

test: .venv/.test
	$(PYTEST) -m "not slow"

test-all: .venv/.test
	$(PYTEST) --cov --cov-report=term:skip-covered

check: .venv/.test
	$(V)/ruff check
	$(V)/ruff format --check
	$(V)/mypy

bench: .venv/.test
	@for name in $(BENCHMARKS); do echo "== $$name"; $(V)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf .venv demo dist

.PHONY: demo test test-all check bench clean
