# Everything from a fresh Debian 12 to tests and demo. Each step leaves a stamp in .make/, so that it runs once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build test demo lint format deep fuzz fuzz-session sanitized sanitize bench bench-quick bench-baseline bench-xet bench-resume bench-huge bench-scan bench-swarm bench-seed bench-mixed sim-crowd bench-crowd oracle fuzz-python hub-versions interop clean

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 60
DEPTH ?= 100
PYTEST_ARGS ?=
TEST_WORKERS ?= 2
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SYSTEM_PACKAGES := g++ cmake ninja-build pkg-config python3-dev python3-venv \
    libtorrent-rasterbar-dev libboost-dev libssl-dev libcurl4-openssl-dev liblz4-dev librust-blake3-dev
# Programs that the tests run, and would be skipped without.
TEST_PACKAGES := opentracker iproute2 chromium libfaketime
LINT_PACKAGES := clang-format
NATIVE := $(shell find native bootstrap -type f 2>/dev/null)
CXX_FILES := $(shell find native -name '*.h' -o -name '*.hpp' -o -name '*.cpp' -o -name '*.c')

# One build at a time: several terminals share the environment.
LOCKED := flock .make/lock

help:
	@echo "make build              set everything up and build the native module into $(VENV)"
	@echo "make test               build, then the test suite (PYTEST_ARGS='-k name')"
	@echo "make demo               build, then examples/two_machines.py"
	@echo "make lint | format      ruff, mypy, clang-format: check | repair"
	@echo "make fuzz               libFuzzer and atheris on every parser, FUZZ_SECONDS=$(FUZZ_SECONDS) each"
	@echo "make fuzz-session       hostile peers against live sessions with sanitizers, FUZZ_SECONDS=$(FUZZ_SECONDS)"
	@echo "make deep               hypothesis on the pure parts with DEPTH=$(DEPTH) times as many examples, half an hour"
	@echo "make sanitize           codec and swarm tests with AddressSanitizer and UndefinedBehaviorSanitizer, some minutes"
	@echo "make oracle             compare chunks, hashes and downloads with the JavaScript clients"
	@echo "make interop            the programs zest 0.4.2, aria2 and transmission as peers; needs root"
	@echo "make bench-xet          figures of the codec and of file hashing, beside hf_xet's"
	@echo "make bench              figures of downloads against hf_xet, some minutes"
	@echo "make bench-quick        whether downloads have become worse than tests/bench/baseline.json says, two minutes"
	@echo "make bench-resume       a download that is killed 20 times: what the CDN sends"
	@echo "make bench-huge         one file of 20 GB: time and memory; 25 GB of disk"
	@echo "make bench-scan         figures of the scan of a cache"
	@echo "make bench-swarm        figures of the swarm against their targets, some minutes; needs root"
	@echo "make bench-seed         what a seeder of 100 GB costs, and how fast it gives; two minutes"
	@echo "make bench-mixed        a peer and the CDN behind links of all kinds, some minutes; needs root"
	@echo "make bench-crowd        8 cold hosts that start together, some minutes; needs root"
	@echo "make sim-crowd          a crowd of 200 nodes on a virtual clock, some minutes"
	@echo "make hub-versions       a download with each huggingface_hub that is supported"
	@echo "make clean              remove everything that was built, also $(VENV)"

.make/lock:
	@mkdir -p .make
	@touch $@

.make/system: Makefile .ci/system-packages | .make/lock
	$(LOCKED) .ci/system-packages $(SYSTEM_PACKAGES)
	@touch $@

.make/venv: | .make/system
	[ -x $(PY) ] || $(LOCKED) $(PYTHON) -m venv $(VENV)
	@touch $@

# Dependencies and the first build. setuptools is for a dependency of a test that comes as source
# (netifaces): without build isolation nothing brings what builds it.
.make/python: pyproject.toml | .make/venv
	$(LOCKED) $(PY) -m pip install -q 'scikit-build-core>=0.11' 'cffi>=1.16' 'setuptools>=70.1'
	$(LOCKED) $(PY) -m pip install -q --no-build-isolation -e '.[hub,test]'
	@touch $@

# Later builds: the native module alone, incrementally.
.make/native: .make/python $(NATIVE)
	$(LOCKED) $(PY) -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

build: .make/native

.make/test: Makefile .ci/system-packages | .make/lock
	$(LOCKED) .ci/system-packages $(TEST_PACKAGES)
	@touch $@

test: build .make/test
	$(PY) -m pytest -q tests -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

.make/demo: .ci/demo-packages | build
	.ci/demo-packages $(PY)
	@touch $@

demo: build .make/demo
	$(PY) examples/two_machines.py

.make/lint: Makefile | .make/lock
	$(LOCKED) .ci/system-packages $(LINT_PACKAGES)
	@touch $@

lint: build .make/lint
	$(PY) -m ruff check .
	$(PY) -m mypy
	clang-format --dry-run -Werror $(CXX_FILES)

format: build .make/lint
	$(PY) -m ruff check --fix .
	clang-format -i $(CXX_FILES)

# In the suite a rare order of events may not come up for months.
deep: build
	DEPTH=$(DEPTH) $(PY) -m pytest -q tests/core tests/sim -n $(TEST_WORKERS) --timeout 3600 $(PYTEST_ARGS)

# The sanitizers' runtime is a package of its own, numbered like the compiler.
.make/fuzz: Makefile | .make/lock
	$(LOCKED) .ci/system-packages clang
	$(LOCKED) .ci/system-packages libclang-rt-$$(clang -dumpversion | cut -d. -f1)-dev
	@touch $@

fuzz: .make/system .make/fuzz
	cmake -S native -B build/fuzz -G Ninja -DZEST_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++
	cmake --build build/fuzz
	mkdir -p build/fuzz/corpus build/fuzz/wire_corpus
	build/fuzz/fuzz/fuzz_xorb -max_total_time=$(FUZZ_SECONDS) -max_len=300000 -rss_limit_mb=1024 \
	    -print_final_stats=1 build/fuzz/corpus native/fuzz/corpus
	build/fuzz/fuzz/fuzz_wire -max_total_time=$(FUZZ_SECONDS) -max_len=2000 -rss_limit_mb=1024 \
	    -print_final_stats=1 build/fuzz/wire_corpus native/fuzz/wire_corpus
	build/fuzz/fuzz/fuzz_sealed -max_total_time=$(FUZZ_SECONDS) -max_len=2000 -rss_limit_mb=1024 \
	    -print_final_stats=1
	$(MAKE) fuzz-python

# The parsers in Python. atheris ships no build for every version of Python; then there is a line that says so.
PYTHON_TARGETS := shard xorb footer reconstruction token
fuzz-python: build
	$(PY) -c 'import atheris' 2>/dev/null || $(LOCKED) $(PY) -m pip install -q atheris || \
	    { echo "zest_hf: atheris cannot be installed for this Python" >&2; exit 1; }
	for target in $(PYTHON_TARGETS); do \
	    $(PY) tests/xet/fuzz.py $$target -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -print_final_stats=1; done

# The module with sanitizers is kept apart from the environment's: -S ignores the editable installation, and the
# copy of the package in the working directory comes first.
SANITIZED := build/sanitize/site
SANITIZED_TESTS := $(addprefix $(CURDIR)/tests/,native swarm)
sanitized: build .make/test
	cmake -S native -B build/sanitize -G Ninja -DZEST_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DPython_EXECUTABLE=$(abspath $(PY))
	cmake --build build/sanitize
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r zest_hf $(SANITIZED)/
	cp build/sanitize/_zest.abi3.so build/sanitize/_zest_http.abi3.so $(SANITIZED)/zest_hf/_native/

# A Python that has it, to be run in $(SANITIZED).
SANITIZED_PY = env LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
    ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16 UBSAN_OPTIONS=print_stacktrace=1 \
    PYTHONPATH="$(abspath $(SANITIZED)):$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" \
    $(abspath $(PY)) -S

sanitize: sanitized
	python=($(SANITIZED_PY)); cd $(SANITIZED); "$${python[@]}" \
	    -m pytest -q -p no:cacheprovider -c $(CURDIR)/pyproject.toml --rootdir $(CURDIR) $(SANITIZED_TESTS) $(PYTEST_ARGS)

# Strangers against live sessions. FUZZ_SEED: one round once more.
FUZZ_SEED ?=
fuzz-session: sanitized
	python=($(SANITIZED_PY)); cd $(SANITIZED); "$${python[@]}" \
	    $(CURDIR)/tests/swarm/fuzz_session.py --seconds $(FUZZ_SECONDS) $(FUZZ_SEED)

# Programs of others, which share no code with this one.
.make/oracle: tests/oracle/package.json | .make/lock
	command -v node >/dev/null && command -v npm >/dev/null || $(LOCKED) .ci/system-packages nodejs npm
	mkdir -p build/oracle
	cp tests/oracle/package.json build/oracle/
	$(LOCKED) npm install --prefix build/oracle --no-audit --no-fund --ignore-scripts
	@touch $@

oracle: build .make/oracle
	cp tests/oracle/oracle.mjs build/oracle/
	$(PY) tests/oracle/compare.py build/oracle

# Peers that others have written, in a network of their own.
INTEROP_PACKAGES := aria2 transmission-cli iproute2
.make/interop: Makefile | .make/venv
	$(LOCKED) .ci/system-packages $(INTEROP_PACKAGES)
	$(PY) -m pip install -q --target build/interop --upgrade --no-deps zest-transfer==0.4.2
	@touch $@

interop: build .make/interop
	tests/private-network $(PY) -m pytest -q -s tests/interop $(PYTEST_ARGS)

bench-xet: build
	$(PY) tests/bench/xet.py

# Rounds of a repository of 1 GB: hf_xet, zest_hf without a peer, zest_hf from a peer, and others that are installed.
# BENCH_DOWNLOAD='--files 2000 --tls': see zest bench download --help
BENCH_DOWNLOAD ?=
bench: build
	$(VENV)/bin/zest bench download $(BENCH_DOWNLOAD)
	$(PY) tests/bench/startup.py
	$(PY) tests/bench/hub.py
	$(PY) tests/bench/discovery.py

# RESUME_ARGS='--at time --seed 7': see tests/bench/resume.py.
RESUME_ARGS ?=
bench-resume: build
	$(PY) tests/bench/resume.py $(RESUME_ARGS)

HUGE_ARGS ?=
bench-huge: build
	PYTHONPATH=tests $(PY) tests/bench/huge $(HUGE_ARGS)

# Whether downloads have become worse than they were when BASELINE was written (by --json, with the same options).
BASELINE ?= tests/bench/baseline.json
QUICK := --runs 5 --megabytes 300
bench-quick: build
	$(VENV)/bin/zest bench download $(QUICK) --against $(BASELINE)

bench-baseline: build
	$(VENV)/bin/zest bench download $(QUICK) --json $(BASELINE)

bench-scan: build
	$(PY) tests/bench/scan.py

# Crowds of hundreds of nodes on a virtual clock. More: zest bench crowd --help
SIM_CROWD ?= --nodes 200 --gigabytes 10 --scale 64
sim-crowd: build
	$(VENV)/bin/zest bench crowd $(SIM_CROWD)

# Figures of the swarm between hosts of a network of its own. BENCH_ARGS: see tests/bench/swarm/__main__.py.
BENCH_ARGS ?=
.make/bench-swarm: Makefile | .make/lock
	$(LOCKED) .ci/system-packages iproute2 opentracker
	@touch $@

bench-swarm: build .make/bench-swarm
	PYTHONPATH=tests:tests/bench tests/private-network $(PY) tests/bench/swarm $(BENCH_ARGS)

bench-seed: build
	PYTHONPATH=tests:tests/bench:tests/bench/swarm $(PY) tests/bench/seeding.py $(BENCH_ARGS)

# Cold hosts that start together, behind shaped links.
bench-crowd: build .make/bench-swarm
	PYTHONPATH=tests:tests/bench:tests/bench/swarm tests/private-network $(PY) tests/bench/crowd $(BENCH_ARGS)

bench-mixed: build .make/bench-swarm
	PYTHONPATH=tests:tests/bench/swarm tests/private-network $(PY) tests/bench/mixed $(BENCH_ARGS)

# A download with each huggingface_hub that is supported, in environments of their own.
hub-versions: build
	$(PY) tests/hook/versions.py

clean:
	rm -rf build dist .make $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
