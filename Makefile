# make demo    make a video through the whole stack
# make test    run the tests; TESTS=tests/jobs/test_flow.py ARGS='-k stored' for some of them
# make dev     leave the stack running, to build against
# make check   everything that must hold before a change lands
SHELL := /bin/bash
PROMPT ?= a purple elephant dancing on a blue beach ball
DURATION ?= 4
SIZE ?= 1280x720
PYTHON ?= python3
# Most tests wait for something: more processes than cores are of use, each with servers of its own.
PROCESSES ?= 5
# Tests of one group share servers (xdist_group); every other test goes to the next free process.
PYTEST := .venv/bin/pytest $(if $(TESTS),,-n $(PROCESSES) --dist loadgroup)
# The tests start hundreds of processes. Without cached bytecode each of them compiles everything that it imports.
export PYTHONDONTWRITEBYTECODE :=
PASSES ?= 1
# What a video shows is text: neither make nor the shell may read anything into it.
override PROMPT := $(value PROMPT)
export PROMPT DURATION SIZE
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo dev test test-fast test-loaded check fmt format lint types contracts deadcode openapi lock faults plans bench bench-rivals bench-compare soak clients sdks peers pooler clean

demo: $(READY)
	@$(BIN)/filmgate demo --prompt="$$PROMPT" --seconds="$$DURATION" --size="$$SIZE"

dev: $(READY)
	@$(BIN)/filmgate dev

test: $(READY)
	$(PYTEST) $(TESTS) $(ARGS)

# The tests that start no server and no process
test-fast: $(READY)
	$(BIN)/pytest --fast $(if $(TESTS),,-n 2 --dist worksteal) $(TESTS) $(ARGS)

# Random order, beside four busy loops: finds waits that a loaded machine outlasts. PASSES=3, ARGS='--seed n' repeats one
test-loaded: $(READY)
	@trap 'kill $$(jobs -p)' EXIT; for loop in 1 2 3 4; do while :; do :; done & done; \
		for pass in $$(seq $(PASSES)); do $(PYTEST) --shuffle $(TESTS) $(ARGS) || exit; done

check: $(READY) format lint types contracts deadcode openapi
	$(PYTEST) --cov=app --cov-report=term:skip-covered --cov-fail-under=85

fmt: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

deadcode: $(READY)
	$(BIN)/vulture

openapi: $(READY)
	$(BIN)/filmgate openapi --check

# Kills, cuts and freezes everything, everywhere, and compares the provider's books with ours. SEED=n MINUTES=m FAULTS=n;
# RESULTS=file keeps the counts: the same command continues where it ended, and another seed is added to the same table;
# WRITE=docs/faults.md publishes the table
faults: $(READY)
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(RESULTS),--results "$(RESULTS)") $(if $(WRITE),--write "$(WRITE)")

# What Postgres does behind a million finished jobs; writes docs/plans.md
plans: $(READY)
	$(BIN)/python -m tests.plans.record

# Every figure against its target; writes benchmarks/results/LATEST.md. ONLY=p1,p2 for some of them, RIVALS=1 for more
bench: $(READY) $(if $(RIVALS),.peers/.ready)
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(RIVALS),--rivals)

# LiteLLM's proxy beside us, against the same upstream in the same rounds; writes benchmarks/results/RIVALS.md
bench-rivals: $(READY) .peers/.ready
	$(BIN)/python -m benchmarks --only p1,p2,ceilings --rivals --out benchmarks/results/RIVALS.md

# Another commit beside this tree, in the same rounds; fails when something got slower. BASE=commit
bench-compare: $(READY)
	$(BIN)/python -m benchmarks.compare --base "$(BASE)"

# Mixed load for long, and whether anything grew. MINUTES=60
soak: $(READY)
	$(BIN)/python -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES))

# Environments beside .venv, made on first use. Clients of openapi/gateway.json by public generators, on a running gateway
clients: $(READY) .clients/.ready
	$(BIN)/pytest tests/clients/generated_clients.py $(ARGS)

.clients/.ready: tests/clients/package-lock.json

# Providers' official SDKs
sdks: .sdks/.ready
	@.sdks/bin/python -c "import fal_client, google.genai, openai, replicate, runwayml; print(runwayml.__name__, runwayml.__version__)"

# The gateway behind Debian's PgBouncer, which gives out connections for one transaction
pooler: $(READY) .pooler/.ready
	$(BIN)/pytest tests/pooler/transaction_mode.py $(ARGS)

.pooler/.ready: scripts/pooler
	@scripts/pooler

# Gateways to measure beside
peers: .peers/.ready
	@.peers/bin/litellm --version

.%/.ready: requirements/%.txt scripts/environment | $(READY)
	@scripts/environment $*

# The locks name hashes and no hosts.
lock: $(READY)
	scripts/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --extra dev --group test -o requirements/dev.txt
	scripts/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml -c requirements/dev.txt -o requirements/runtime.txt
	for name in clients sdks peers; do scripts/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header requirements/$$name.in -o requirements/$$name.txt; done
	printf 'uv\nhatchling\n' | scripts/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header - -o requirements/bootstrap.txt

$(READY): pyproject.toml requirements/dev.txt requirements/bootstrap.txt scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup && touch $@

clean:
	rm -rf .venv .clients .sdks .peers .pooler .filmgate .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
