# Needs Rust (cargo, clippy, rustfmt) and Python >= 3.11; all else goes into $(VENV).
# Another interpreter: `make test PYTHON=python3.13`. Flags for the demo: `make demo ARGS='--epochs 5'`.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python -P
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
say = @printf '\n== %s\n'

# Mesa's software Vulkan complains without it.
export XDG_RUNTIME_DIR ?= /tmp

# Tests and lints must see what users get: the installed wheel, never the source tree.
unexport PYTHONPATH

# $(call install,PROFILE): builds one wheel with that cargo profile and installs it into the venv.
define install
	@rm -rf dist/$(1)
	$(VENV)/bin/maturin build --quiet --profile $(1) --interpreter $(VENV)/bin/python --out dist/$(1)
	@$(PIP) install --force-reinstall --no-deps dist/$(1)/*.whl
	@$(PIP) install dist/$(1)/*.whl
endef

.PHONY: help
help:
	@printf '%s\n' \
	  'make demo           build the release wheel, train a digit classifier, show what happened' \
	  'make test           build the test wheel, run every test, every lint and the stub check' \
	  'make install        the test wheel into the venv, for pytest on part of the tests' \
	  'make check          lints and types only' \
	  'make wheel          the release wheel, in dist/release' \
	  'make bench          kernels beside the peaks of this machine' \
  'make bench-gemm     matrix products against NumPy, same run' \
	  'make bench-compare  training steps against other libraries, same run: table, JSON and chart in dist/bench' \
	  'make bench-instructions  instructions of the tiny steps (valgrind), a number without noise' \
  'make thread-bits    the bits of training on 1 to 8 threads, in full' \
  'make clean          remove what the other targets made'

$(VENV)/.build: pyproject.toml
	$(say) 'virtual environment: $(VENV)'
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust from https://rustup.rs'; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  f"wengert needs Python >= 3.11 and $(PYTHON) is {v[0]}.{v[1]}: try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --group build
	@touch $@

$(VENV)/.test: $(VENV)/.build
	$(say) 'test tools into $(VENV)'
	@$(PIP) install --group test
	@touch $@

.PHONY: demo
demo: $(VENV)/.build
	$(say) 'release wheel (fat LTO: a minute or two)'
	$(call install,release)
	$(say) 'python -m wengert $(ARGS)'
	@$(PY) -m wengert $(ARGS)

.PHONY: install
install: $(VENV)/.test
	$(say) 'test wheel (profile checked: assertions and overflow checks on)'
	$(call install,checked)

# Without a driver there is no GPU, not even a software one, and what needs one is skipped: this tries to get one.
.PHONY: vulkan
vulkan:
	@if [ "$$(uname)" = Linux ] && [ "$$(id -u)" = 0 ] && \
	  ! find /usr/share/vulkan /etc/vulkan -name '*_icd*.json' 2>/dev/null | grep -q . && command -v apt-get >/dev/null; then \
	  printf '\n== Mesa: Vulkan in software\n'; \
	  { apt-get -qq update && apt-get -qq install -y --no-install-recommends libvulkan1 mesa-vulkan-drivers; } >/dev/null || \
	  echo 'Mesa could not be installed'; \
	fi

.PHONY: test
test: vulkan install
	$(say) 'the GPUs of the tests'
	@$(PY) -c 'import wengert as wg; print(*wg.gpu.devices() or ["NONE: all tests of GPUs are skipped"], sep="\n")'
	$(say) 'cargo test'
	cargo test --locked --profile checked --features gpu
	$(say) 'pytest'
	$(PY) -m pytest
	$(say) 'the examples in the docstrings'
	$(PY) -m pytest --doctest-modules --pyargs wengert
	@$(MAKE) --no-print-directory check stubcheck

# The dev profile keeps its own pyo3: sharing the wheel's would rebuild it at each switch.
.PHONY: check
check: $(VENV)/.test
	$(say) 'clippy, with GPUs, with the Python bindings, with both'
	cargo clippy --locked --all-targets --features gpu -- -D warnings
	cargo clippy --locked --lib --features python -- -D warnings
	cargo clippy --locked --lib --features python,gpu -- -D warnings
	$(say) 'formatting and lints'
	cargo fmt --check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(say) 'types'
	$(VENV)/bin/mypy

.PHONY: stubcheck
stubcheck:
	$(say) 'the stub against the installed module'
	$(PY) -m mypy.stubtest wengert._core

.PHONY: wheel
wheel: $(VENV)/.build
	$(say) 'release wheel'
	$(call install,release)
	@ls -l dist/release

.PHONY: bench
bench:
	$(say) 'cargo bench'
	cargo bench --locked

.PHONY: bench-gemm
bench-gemm: $(VENV)/.test
	$(say) 'benches/gemm_numpy.py'
	@$(VENV)/bin/python benches/gemm_numpy.py $(ARGS)

# A peer that cannot be installed is left out, and the table says so. A script's own folder must be importable: no -P here.
.PHONY: bench-compare
bench-compare: $(VENV)/.build
	$(say) 'release wheel and the peers of benches/requirements.txt'
	@grep -v '^#' benches/requirements.txt | while read -r peer; do \
	  $(PIP) install "$$peer" || echo "not installed: $$peer"; done
	$(call install,release)
	$(say) 'benches/compare.py'
	@mkdir -p dist/bench
	@$(VENV)/bin/python benches/compare.py --memory --json dist/bench/compare.json --svg dist/bench/compare.svg \
	  --markdown dist/bench/compare.md $(ARGS)

# Needs valgrind. `ARGS=--check` holds the counts against benches/instructions.json, `ARGS=--write` records them.
.PHONY: bench-instructions
bench-instructions: $(VENV)/.test
	$(call install,release)
	$(say) 'benches/instructions.py'
	@$(VENV)/bin/python benches/instructions.py $(ARGS)

.PHONY: thread-bits
thread-bits: install
	$(say) 'tests/thread_bits.py: 200 steps, ten runs for each number of threads'
	@$(VENV)/bin/python tests/thread_bits.py

.PHONY: clean
clean:
	cargo clean
	rm -rf $(VENV) dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
