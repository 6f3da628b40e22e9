# make demo    make a film through the whole stack
# make test    run the tests
# make dev     leave the stack running, to build against
# make check   everything that must hold before a change lands
SHELL := /bin/bash
PROMPT ?= a purple elephant dancing on a blue beach ball
DURATION ?= 4
SIZE ?= 1280x720
PYTHON ?= python3
# Most tests wait for something: more processes than cores are of use, each with servers of its own.
PROCESSES ?= 3
# What a film shows is text: neither make nor the shell may read anything into it.
override PROMPT := $(value PROMPT)
export PROMPT DURATION SIZE
BIN := .venv/bin
READY := .venv/.ready
RIVAL := .rivals/.ready

.PHONY: demo dev test check format lint types contracts deadcode openapi lock faults plans bench bench-rivals bench-compare soak clean

demo: $(READY)
	@$(BIN)/filmgate demo --prompt="$$PROMPT" --seconds="$$DURATION" --size="$$SIZE"

dev: $(READY)
	@$(BIN)/filmgate dev

test: $(READY)
	$(BIN)/pytest -n $(PROCESSES) --dist loadfile

check: $(READY) format lint types contracts deadcode openapi
	$(BIN)/pytest -n $(PROCESSES) --dist loadfile --cov=app --cov-report=term:skip-covered --cov-fail-under=85

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
# RESULTS=file keeps the counts: the same command goes on where it ended, and another seed is added to the same table
faults: $(READY)
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(RESULTS),--results "$(RESULTS)")

# What Postgres does behind a million finished jobs; writes docs/plans.md
plans: $(READY)
	$(BIN)/python -m tests.plans.record

# Every figure against its target; writes benchmarks/results/LATEST.md. ONLY=p1,p2 for some of them, RIVALS=1 for more
bench: $(READY) $(if $(RIVALS),$(RIVAL))
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(RIVALS),--rivals)

# LiteLLM's proxy beside us, against the same upstream in the same rounds; writes benchmarks/results/RIVALS.md
bench-rivals: $(READY) $(RIVAL)
	$(BIN)/python -m benchmarks --only p1,p2,ceilings --rivals --out benchmarks/results/RIVALS.md

# Another commit beside this tree, in the same rounds; fails when something got slower. BASE=commit
bench-compare: $(READY)
	$(BIN)/python -m benchmarks.compare --base "$(BASE)"

# Mixed load for long, and whether anything grew. MINUTES=60
soak: $(READY)
	$(BIN)/python -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES))

$(RIVAL): benchmarks/rivals.txt
	$(BIN)/uv venv -q --clear --python $(BIN)/python .rivals
	$(BIN)/uv pip install -q --python .rivals/bin/python -r benchmarks/rivals.txt
	@touch $@

# The locks name hashes and no hosts.
lock: $(READY)
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --extra dev --group test -o requirements/dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml -c requirements/dev.txt -o requirements/runtime.txt
	printf 'uv\nhatchling\n' | $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header - -o requirements/bootstrap.txt

$(READY): pyproject.toml requirements/dev.txt requirements/bootstrap.txt scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup && touch $@

clean:
	rm -rf .venv .filmgate .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
