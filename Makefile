# attend: everything a person or CI does, by name. `make help` lists it.
#
# Three targets install what a bare Debian 12 lacks before they work: demo, test and lint. The others expect `make deps`,
# and install what only they need.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-print-directory --no-builtin-rules

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
CTEST = ctest --preset $(1) --parallel $(JOBS) --no-tests=error --output-junit ctest.xml

# Objects are the same in every checkout and in a bare root, so that all of them share one compiler cache.
export CCACHE_BASEDIR ?= $(CURDIR)
export CCACHE_NOHASHDIR ?= 1
export CCACHE_COMPILERCHECK ?= content

.PHONY: demo
demo: deps-demo  ## Install, build, start a server, compute a five-token example, compare it with PyTorch
	@cmake --preset release >/dev/null
	cmake --build --preset release --parallel $(JOBS) --target attend-server attend attend-verify
	scripts/demo.sh

.PHONY: check
check:  ## Build and run the tests that start no server; T=name or T=regex: those tests, whatever they need
	@scripts/check.sh $(if $(T),'$(T)')

.PHONY: test
test: deps  ## Install, then test everything the project promises: optimised, with sanitizers, with thread-safety analysis
	@scripts/steps.sh test-release test-dev test-tsan test-thread-safety

.PHONY: test-release
test-release: build-release  ## The whole suite, optimised
	$(call CTEST,release)

.PHONY: test-dev
test-dev: build-dev  ## The whole suite, with AddressSanitizer and UndefinedBehaviorSanitizer
	$(call CTEST,dev)

.PHONY: test-tsan
test-tsan: build-tsan  ## The core's suite and the server's threads, with ThreadSanitizer
	$(call CTEST,tsan)

.PHONY: test-thread-safety
test-thread-safety: build-thread-safety  ## clang's thread-safety analysis of server, client and core

.PHONY: test-neon
test-neon: deps-neon  ## Install, then the core's suite on emulated 64-bit Arm: NEON gives the recorded bits
	@$(MAKE) build-neon
	$(call CTEST,neon)

.PHONY: bits
bits:  ## Record new fingerprints of the kernels (tests/core/core_bits.txt): only when bits are meant to change
	@cmake --preset release >/dev/null
	cmake --build --preset release --parallel $(JOBS) --target core_bits
	build/release/bin/core_bits --write tests/core/core_bits.txt
	build/release/bin/core_bits --fast --write tests/core/core_bits_fast.txt || test $$? -eq 77
	build/release/bin/core_bits --amx --write tests/core/core_bits_amx.txt || test $$? -eq 77

.PHONY: test-image
test-image:  ## Build the container image and call the server in it (needs root)
	scripts/install-dependencies.sh image
	tests/deploy/image_test.sh

.PHONY: test-observability
test-observability: build-release  ## Dashboard and alerts against the real Prometheus: queries have data, faults fire (minutes)
	ctest --test-dir build/release --build-config observability --label-regex '^observability$$' --output-on-failure --no-tests=error

.PHONY: test-envoy
test-envoy: build-release  ## deploy/envoy with the real Envoy before real servers (fetches 40 MB)
	ctest --test-dir build/release --build-config envoy --label-regex '^envoy$$' --output-on-failure --no-tests=error

.PHONY: slowest-tests
slowest-tests:  ## The ten slowest tests of the last runs
	@/usr/bin/python3 scripts/slowest_tests.py

.PHONY: nightly
nightly:  ## Everything that takes too long for CI, one after the other, with a summary (hours; needs root)
	scripts/nightly.sh

.PHONY: hostile
hostile: build-release  ## Clients that mean harm: every attack, bare, with mTLS, through Envoy, in a small container (minutes)
	ATTEND_HOSTILE=long ctest --test-dir build/release --build-config hostile -L '^hostile$$' --output-on-failure --no-tests=error

.PHONY: soak
soak: build-release  ## Is a planted leak found (4 minutes)? Then half an hour at 70 % load among hostile clients: nothing grows
	ctest --test-dir build/release --build-config soak --label-regex '^soak$$' --output-on-failure --no-tests=error --verbose

.PHONY: test-kubernetes
test-kubernetes: build-release  ## The overlays on a real cluster of one node (needs root; builds Kubernetes and the image first)
	scripts/install-dependencies.sh kubernetes
	ctest --test-dir build/release --build-config kubernetes --label-regex '^kubernetes$$' --output-on-failure --no-tests=error

.PHONY: test-vectors
test-vectors: build-release  ## ONNX's own test vectors, and random problems judged by PyTorch (fetches 600 MB of packages)
	scripts/install-dependencies.sh peers
	scripts/vectors-venv.sh
	ctest --test-dir build/release --build-config vectors --label-regex '^vectors$$' --output-on-failure --no-tests=error

.PHONY: test-python
test-python: build-release  ## The Python package against PyTorch and models of transformers; the notebook (fetches 3 GB of packages)
	scripts/install-dependencies.sh peers
	mkdir -p build/models
	for line in 4 5; do scripts/vectors-venv.sh tests/vectors/models/transformers-$$line.txt build/models/venv-transformers-$$line || exit; done
	ctest --test-dir build/release --build-config python --label-regex '^python-nightly$$' --output-on-failure --no-tests=error

.PHONY: test-minilm
test-minilm: build-release  ## A sentence encoder whose attention runs in the server, against float64 (fetches 84 MB)
	ATTEND_MINILM=$$(scripts/minilm.sh) \
	ctest --test-dir build/release --build-config minilm --label-regex '^minilm$$' --output-on-failure --no-tests=error

.PHONY: test-clients
test-clients: build-release  ## Follow the pages of docs/clients: Python, Go, Java, Node, Rust, C++; Connect's clients and conformance suite (fetches 500 MB of packages)
	scripts/install-dependencies.sh languages tools
	command -v cargo >/dev/null || scripts/install-dependencies.sh rust
	cmake --build --preset release --parallel $(JOBS) --target connect_conformance_server
	ctest --test-dir build/release --build-config clients --label-regex '^clients$$' --output-on-failure --no-tests=error

.PHONY: test-packages
test-packages: packages packages-arm64  ## Install the Debian packages and the wheel in a bare Debian 12, use and purge them; arm64 under qemu (needs root)
	scripts/install-dependencies.sh test python
	tests/deploy/packages_test.sh

.PHONY: test-page
test-page: build-release  ## The page in a real Chromium: numbers, switches, keyboard, axe, other origins; pictures in build/page (fetches 100 MB)
	scripts/install-dependencies.sh page
	mkdir -p build/page/npm
	cp tests/page/package.json tests/page/package-lock.json build/page/npm
	cd build/page/npm && npm ci --no-audit --no-fund --loglevel=error
	ctest --test-dir build/release --build-config page --label-regex '^page$$' --output-on-failure --no-tests=error

.PHONY: test-models
test-models: build-release  ## Every model class of transformers 4 and 5, timm, diffusers, ... against attend's layers (fetches 1.5 GB; hours)
	scripts/install-dependencies.sh peers
	tests/vectors/models/run.sh

.PHONY: build
build: build-release  ## Server, client and tests, optimised, in build/release/bin

build-%:
	@cmake --preset $* >/dev/null
	cmake --build --preset $* --parallel $(JOBS)

.PHONY: lint
lint: deps  ## Formatting, clang-tidy, shell scripts, Python, the style of proto/ and what would break its users
	scripts/lint.sh

.PHONY: lint-tests
lint-tests: deps  ## clang-tidy on the tests' C++ (half an hour the first time)
	scripts/lint.sh tidy_tests

.PHONY: baseline
baseline:  ## Record proto/ as released (proto/baseline/): only with a release, or before one of a version that has none yet
	$$(scripts/lint-venv.sh)/buf build --exclude-source-info -o proto/baseline/attend.binpb

.PHONY: format
format:  ## Format the C++ files in place
	git ls-files '*.cc' '*.h' | xargs clang-format-14 -i

.PHONY: bench
bench: bench-core bench-rpc bench-layers bench-scrape  ## Measure attend

.PHONY: bench-core
bench-core:  ## Measure the kernels against this machine's peak and oneDNN; results in build/bench/summary.json
	@scripts/install-dependencies.sh bench || echo 'bench-core: goes on without oneDNN' >&2
	@cmake --preset release >/dev/null
	cmake --build --preset release --parallel $(JOBS) --target core_bench
	@mkdir -p build/bench
	build/release/bin/core_bench --benchmark_out=build/bench/core.json --benchmark_out_format=json
	/usr/bin/python3 tests/bench/core/summarize.py build/bench/core.json build/bench/summary.json $(RESULTS)

.PHONY: bench-rpc
bench-rpc: build-release  ## Measure what a call costs, against a bare echo of the same bytes, overload, and tenants beside each other
	/usr/bin/python3 tests/bench/rpc/rpc_bench.py --bin build/release/bin $(if $(RESULTS),--results $(RESULTS))
	/usr/bin/python3 tests/load/overload.py --bin build/release/bin $(if $(RESULTS),--results $(RESULTS))
	/usr/bin/python3 tests/bench/rpc/tenants_bench.py --bin build/release/bin

.PHONY: bench-layers
bench-layers: build-release  ## Measure uploading and loading a layer of 256 MiB
	/usr/bin/python3 tests/bench/rpc/layer_bench.py --bin build/release/bin

.PHONY: bench-scrape
bench-scrape: build-release  ## Measure calls while /metrics is read every second, over calls while it is not (3 minutes)
	/usr/bin/python3 tests/bench/rpc/scrape_bench.py --bin build/release/bin $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-peers
bench-peers: build-release  ## Measure the kernels against PyTorch, ONNX Runtime and NumPy (fetches 600 MB of packages)
	scripts/install-dependencies.sh peers
	scripts/vectors-venv.sh
	build/venv/bin/python tests/bench/peers.py --bin build/release/bin --results tests/bench/RESULTS.md

.PHONY: bench-compare
bench-compare:  ## Is this tree as fast as BASE=<commit>? [ROWS=regex] [ROUNDS=10] [LIMIT=0.98] (13 minutes)
	@[[ -n "$(BASE)" ]] || { echo 'bench-compare: say which commit to compare with: BASE=<commit>' >&2; exit 2; }
	/usr/bin/python3 tests/bench/compare.py --base '$(BASE)' --jobs $(JOBS) $(if $(ROWS),--rows '$(ROWS)') \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(LIMIT),--limit $(LIMIT))

.PHONY: load
load: build-release  ## Load a local server with ghz (results in build/load), then with up to ten times too much
	tests/load/run.sh
	/usr/bin/python3 tests/load/overload.py --bin build/release/bin

.PHONY: image
image:  ## Build the container image with docker, podman or buildah
	scripts/build-image.sh

.PHONY: python-package
python-package:  ## Build the Python package (client/python) as wheel and source archive, in build/python-package/dist
	scripts/install-dependencies.sh python
	@scripts/python-package.sh

.PHONY: packages
packages:  ## Build the Debian packages (docs/packages.md) in build/packages
	scripts/install-dependencies.sh build packages
	@scripts/packages.sh

.PHONY: packages-arm64
packages-arm64:  ## Cross-compile the Debian packages of HEAD for arm64, in a bare Debian 12 (needs root)
	scripts/install-dependencies.sh bare
	@scripts/packages-arm64.sh

.PHONY: release
release:  ## Check HEAD as a release, make its artefacts in build/release-artefacts and tag it here (DRY_RUN=1: only check)
	scripts/release.sh $(if $(DRY_RUN),--dry-run)

.PHONY: fuzz
fuzz: build-fuzz  ## Fuzz every parser for FUZZ_SECONDS (60) each
	scripts/fuzz.sh $(FUZZ_SECONDS)

.PHONY: mutants
mutants:  ## Plant N=100 small faults, one at a time: would a test notice? (45 minutes; see mutants.py for more)
	/usr/bin/python3 tests/mutants/mutants.py --jobs $(JOBS) $(if $(N),--count $(N)) $(if $(FILES),--files '$(FILES)') \
	  $(if $(TESTS),--tests '$(TESTS)') $(if $(COMMIT),--commit $(COMMIT)) $(if $(AGAIN),--again $(AGAIN)) $(if $(QUICK),--quick) \
	  $(if $(PLANTED),--planted $(PLANTED))

.PHONY: off-by-ones
off-by-ones:  ## Plant an off-by-one wherever the core decides which keys a query sees: its tests notice each (hours)
	@$(MAKE) mutants PLANTED=tests/mutants/off_by_one.toml TESTS=core

.PHONY: verify-bare
verify-bare:  ## Run README's first commands in a fresh, bare Debian 12 (needs root; about 35 minutes)
	scripts/install-dependencies.sh bare
	scripts/verify-bare.sh

.PHONY: newcomer
newcomer:  ## After `make demo`: README's blocks as they stand, in one shell (port 50051 must be free; builds what they name)
	tests/integration/newcomer.py

.PHONY: test-newcomer
test-newcomer:  ## `make demo` and README's blocks as they stand, in a fresh, bare Debian 12 (needs root; minutes)
	scripts/install-dependencies.sh bare
	scripts/verify-bare.sh demo newcomer

.PHONY: deps deps-demo deps-neon
deps:
	scripts/install-dependencies.sh
deps-demo:
	scripts/install-dependencies.sh build test
deps-neon:
	scripts/install-dependencies.sh build test neon
	scripts/arm64-sysroot.sh

.PHONY: clean
clean:  ## Remove build/
	rm -rf build

.PHONY: help
help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
