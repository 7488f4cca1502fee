# Two commands: `make demo` and `make test`. Both start from nothing but Python >= 3.10 and Rust.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PREFIX ?= /usr/local
MODEL_CACHE ?= $(CURDIR)/.cache
export FASTQ_CACHE ?= $(MODEL_CACHE)/fastq
export FASTQ_MODELS ?= $(MODEL_CACHE)/models
export FASTQ_PYTHON ?= $(CURDIR)/$(BIN)/python
export RUSTDOCFLAGS := -D warnings
# Tests share the compiled kernels and dependencies of the release; what is above them is compiled with its assertions.
CHECKED := --release --config tests/cargo.toml
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test build models test-rust lint test-python test-docs test-c test-sdist test-arm wheels install-c asan fuzz clean help

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: build ## Build, fetch the default model and answer a prompt
	$(BIN)/fastq run "What is gravity?"

test: lint test-rust test-python test-docs test-c test-sdist ## Everything that CI checks
	@echo "all tests passed"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# pip reads the dependency groups of pyproject.toml from version 25.1 on.
$(VENV)/ready: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

build: $(VENV)/ready ## Build the extension into .venv, with all optimizations
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet

models: $(VENV)/ready ## Fetch the real models that the tests use
	$(BIN)/python tests/models.py

lint: build ## Formatting, lints and types, warnings as errors
	cargo fmt --all --check
	cargo clippy $(CHECKED) --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=python $(BIN)/python -m mypy.stubtest fastq --ignore-missing-stub --mypy-config-file pyproject.toml

test-rust: models ## Rust tests and the examples of the Rust docs
	cargo test --quiet $(CHECKED)
	cargo doc $(CHECKED) --workspace --no-deps --quiet

test-python: build models ## Python tests
	$(BIN)/python -m pytest

test-docs: build models ## Run the examples of README and docstrings
	$(BIN)/python -m pytest -q --doctest-modules --pyargs fastq --doctest-continue-on-failure
	$(BIN)/python -m pytest -q --doctest-glob='*.md' README.md

test-c: build models ## Use the C library from C, as programs do (needs a C compiler)
	FASTQ=$(BIN)/fastq PYTHON=$(BIN)/python bash tests/c/run.sh

test-sdist: build ## Build the wheel from the source distribution, install it in a clean venv and use it
	bash tests/sdist.sh $(BIN)/python

install-c: ## Install libfastq, fastq.h and fastq.pc below PREFIX (/usr/local)
	bash rust/c/install.sh $(PREFIX)

test-arm: build models ## Tests on emulated ARM and older x86 processors (on x86-64 with Debian's apt; sets everything up)
	bash tests/cross/test_arm.sh $(BIN)/python

wheels: build models ## Wheels, programs and sdist of a release into dist (the same machine; NAMES="..." for some)
	PYTHON=$(BIN)/python bash tests/cross/wheels.sh $(NAMES)

asan: ## Kernel and parser tests under AddressSanitizer
	bash tests/asan.sh

fuzz: $(VENV)/ready ## Fuzz the GGUF reader (FUZZ_SECONDS=600); needs `cargo install cargo-fuzz`
	$(BIN)/python tests/fuzz/seeds.py
	cd tests/fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . gguf_parse -- \
		-max_len=65536 -timeout=10 -rss_limit_mb=512 -max_total_time=$(or $(FUZZ_SECONDS),600)

clean: ## Remove what the build made
	rm -rf $(VENV) target dist
