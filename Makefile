# `make` says what there is to make. PYTHON=/path/to/python names the one for .venv, WORKERS=4 the test processes,
# ARGS="-k cart" goes to pytest, ARGS=--quick to the benchmarks; STORE=memcached or STORE=memcached-cluster to the demo,
# which keeps its sessions in valkey else.

PYTHON ?=
WORKERS ?= 2
ARGS ?=
STORE ?= valkey
PYTEST = .venv/bin/python -m pytest -n $(WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench bench-growth lint format clean system

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: .venv/ready ## Two shops, Flask and Django, each on three instances behind a load balancer, at http://127.0.0.1:8000 and :8001
	@case "$(STORE)" in memcached*) bash .ci/prepare system memcached;; esac
	@STORE="$(STORE)" exec .venv/bin/python -m example_flask_app.demo

test: system .venv/ready ## Everything it takes, then the tests; under 15 minutes on two cores
	$(PYTEST) -m "not slow" $(ARGS)

test-all: system .venv/ready ## What `make test` leaves out: load, scale, faults, long fuzzing, ElastiCache's topologies; then each Python, by nox
	$(PYTEST) -m "slow or hypothesis" --hypothesis-profile=long --timeout=600 $(ARGS)
	$(PYTEST) -m "not slow and not demo" --stores topologies --hypothesis-profile=few $(ARGS)
	.venv/bin/python -m nox

bench: .venv-bench/ready ## What sessions cost beside every peer, in some 10 minutes; ARGS=--quick for a first look
	@bash .ci/prepare system memcached
	.venv-bench/bin/python -m benchmarks $(ARGS)

bench-growth: .venv-bench/ready ## What becomes of it with a million sessions, more nodes and workers, crowds on one session; in about an hour
	@bash .ci/prepare system memcached redis-server
	.venv-bench/bin/python -m benchmarks.growth $(ARGS)

lint: .venv/ready ## ruff, mypy --strict, and cfn-lint for the CloudFormation templates
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy --strict
	.venv/bin/cfn-lint docs/cloudformation/*.yaml

format: .venv/ready ## Put the code in order, as `make lint` wants it
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean: ## Remove what the other targets made
	rm -rf .venv .venv-bench .nox .cache dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage example_django_project/db.sqlite3*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: pyproject.toml .ci/prepare
	@PYTHON="$(PYTHON)" MAKECMDGOALS="$(MAKECMDGOALS)" bash .ci/prepare python

.venv-bench/ready: pyproject.toml .ci/prepare
	@PYTHON="$(PYTHON)" MAKECMDGOALS="$(MAKECMDGOALS)" bash .ci/prepare bench

system:
	@bash .ci/prepare system
