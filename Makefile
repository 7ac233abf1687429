# make demo   the whole study on the embedded model, in a few minutes, no GPU and no network needed
# make ui     its runs in the MLflow UI, arranged for comparison
# make test   everything that must hold
# make faults what killed processes, wrong input and attacks cost, counted against goals; minutes
# make docs   the documentation as a site: build/docs/index.html
# make bench  how much faster packs are, with a table; ten minutes
# make lock   requirements.lock anew, from the pins of conda.yaml
# make audit  are there known vulnerabilities in what the lock pins?
# make sbom   what the lock pins, as a CycloneDX list of parts: build/sbom.json
PYTHON ?= python3.11
BIN := .venv/bin
# A short study: 300 steps where the default is 1000, one seed, 128 samples.
DEMO := -P steps=300 -P seeds=0 -P samples=128 -P edit_seeds=2 -P sample_every=150 -P probes=8 \
	-P reg_every=4

.PHONY: help setup demo ui docs test test-all faults faults-long bench lock audit sbom world clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: .venv/ready

.venv/ready: setup.cfg pyproject.toml
	@echo "== Setting up .venv (once; downloads torch, diffusers and MLflow) =="
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: setup
	@echo "== The study of examples/mochi on the embedded model: 300 steps, not the usual 1000 =="
	PATH="$(CURDIR)/$(BIN):$$PATH" MLFLOW_TRACKING_URI=sqlite:///mlflow.db \
		$(BIN)/mlflow run . --env-manager local --experiment-name pti $(DEMO)

ui: setup
	$(BIN)/pti ui

# Every warning is an error; the pages of options and modules are made anew each time.
docs: .venv/docs-ready
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -c docs . build/docs
	@echo "build/docs/index.html"

.venv/docs-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

test: setup
	@echo "== Style and types =="
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	@echo "== Floors =="
	$(BIN)/lint-imports
	@echo "== Tests =="  # four at once on two cores: many wait for processes and servers
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=15

test-all: test
	@echo "== Slow tests =="
	$(BIN)/pytest -m "slow and not server and not ui" -rs
	@echo "== Servers of MLflow and PostgreSQL =="
	$(BIN)/pytest -m server -rs
	@echo "== The MLflow UI in a browser (skipped without Chromium: scripts/install_browser.sh) =="
	$(BIN)/pytest -m ui -rs
	@echo "== Ray (skipped unless .venv has it: pip install '.[ray]') =="
	$(BIN)/pytest -m ray -rs

# Counts, written to docs/results/faults.json; PART=kills takes one part alone.
faults: setup
	$(BIN)/python -m faults $(if $(PART),--part="$(PART)")

# The same in hours; what was measured at this commit is not taken again.
faults-long: .venv/mutation-ready
	$(BIN)/python -m faults --long $(if $(PART),--part="$(PART)")

# Ratios, written to benchmarks/results.json. PEERS=<folder with checkouts of diffusers and lora> and
# SINCE=<commit whose demo is run beside today's> add rows, ONLY=packs|peers|demo|gpu|gpu-xl|cards
# leaves others.
bench: setup
	$(BIN)/python -m benchmarks $(if $(PEERS),--peers="$(PEERS)") $(if $(SINCE),--since="$(SINCE)") \
		$(if $(ONLY),--only="$(ONLY)")

lock: setup
	scripts/lock.sh

# torch's builds have hashes of their own: it is not in the lock
TORCH = $$(sed -n 's/^ *- \(torch==.*\)/\1/p' conda.yaml)
IGNORED = $$(sed -n 's/^\([A-Z][^ ]*\) .*/--ignore-vuln=\1/p' scripts/audit-ignored.txt)

# strict: what the vulnerability service does not know is no good news
.venv/mutation-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,mutation]'
	touch $@

audit: .venv/audit-ready
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock $(IGNORED)
	echo "$(TORCH)" | $(BIN)/pip-audit --strict --disable-pip --no-deps --requirement /dev/stdin $(IGNORED)

sbom: .venv/audit-ready
	mkdir -p build
	{ cat requirements.lock; echo "$(TORCH)"; } | \
		$(BIN)/cyclonedx-py requirements - --output-reproducible --output-file build/sbom.json
	@echo "build/sbom.json"

.venv/audit-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[audit]'
	touch $@

world: setup
	$(BIN)/torchrun --nproc-per-node $$(nproc) -m pti_pipeline world train
	$(BIN)/pti world export --weights=pti_pipeline/world/weights

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info
