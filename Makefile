# Two commands do everything on a fresh machine: `make demo` shows the main job, `make test` proves all of it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help generated need-root setup setup-redis setup-docker images fast lint lint-changed unit modules server others molecule fuzz walk test demo demo-down clean bench

# Byte code makes each start of Ansible three times faster; some environments forbid it by this variable.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.cache/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
export MOLECULE_GLOB := molecule/*/molecule.yml
export MOLECULE_COMMAND_BORDERS := false
PYTEST := python -m pytest
# The longest first, so that none of them is alone at the end.
SCENARIOS ?= sentinel backup cluster hardened health brownfield interrupted refusals default airgapped drift
OTHERS ?= redis-8.0 redis-8.2 valkey-8.1 valkey-9
CORE ?= redis_persistence redis_config redis_backup redis_restore redis_acl redis_replication redis_sentinel redis_health_info
PART ?= lint unit modules molecule
# Tests of modules wait more than they compute: several for each core. Scenarios compute while others wait.
CORES := $(shell nproc 2>/dev/null || echo 2)
WORKERS ?= $(shell echo $$(( $(CORES) * 4 )))
JOBS ?= $(CORES)
export SCENARIOS JOBS WORKERS

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## virtual environment with pinned dependencies, collection path
	@tests/tools/setup.sh venv

setup-redis: setup
	@tests/tools/setup.sh redis

setup-docker: setup
	@tests/tools/setup.sh docker

images: setup-docker ## build the lab's images (once, then cached)
	@python tests/lab/lab.py images

fast: lint-changed unit ## lint of what differs from main, and unit tests: no container, under a minute

lint: setup ## ruff, yamllint, ansible-lint, changelog fragments
	@tests/tools/lint.sh all

lint-changed: setup
	@tests/tools/lint.sh changed

unit: setup ## pure code
	$(PYTEST) -q -n $(CORES) tests/unit

generated: setup ## what in the documentation is written from the sources
	@python -m tests.support.generated

need-root:
	@[ "$$(id -u)" = 0 ] || { echo "make: this mounts small file systems and builds images, so it has to run as root: sudo make test" >&2; exit 1; }

modules: setup-redis $(if $(SERVER),server) ## every module against a real redis-server on loopback, what happens when it is cut off, and the report in a browser; SERVER=redis-8.2 picks another
	REDISOPS_TEST_SERVER=$(SERVER) $(PYTEST) -q -n $(WORKERS) --dist worksteal tests/faults tests/integration tests/walk tests/fuzz tests/browser

server: setup ## SERVER=valkey-8.1 puts that server where `make modules SERVER=valkey-8.1` finds it
	@tests/tools/setup.sh servers
	@python tests/tools/servers.py $(SERVER)

others: setup-redis ## the core of the tests of modules against each of OTHERS, the servers that people run besides
	@set -e; for name in $(OTHERS); do $(MAKE) --no-print-directory server SERVER=$$name; \
	    REDISOPS_TEST_SERVER=$$name $(PYTEST) -q -n $(WORKERS) --dist worksteal $(CORE:%=tests/integration/test_%.py); done

fuzz: setup-redis ## changed files, read by our readers and by a real Redis; SECONDS=600 says how long, SEED=7 makes the same files again
	@python tests/fuzz/run.py --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

walk: need-root setup-redis ## steps that nobody scripted on a real server, each module among them; STEPS=2000 says how many, SEED=7 chooses the same again
	@nice -n 10 python -m tests.walk.run --steps $(or $(STEPS),500) $(if $(SEED),--seed $(SEED)) --aloud

molecule: images ## roles and playbooks on systemd hosts; SCENARIOS="default drift" picks, JOBS=1 shows all of their output as it comes
	@python tests/tools/scenarios.py --jobs $(JOBS) $(SCENARIOS)

test: need-root setup ## everything; PART="lint modules" picks, of lint, unit, modules, molecule
	@python tests/tools/parts.py $(PART)

bench: setup-redis ## what backups and restores cost here, next to the plainest way to do the same
	@python tests/bench/backup_bench.py

demo: images ## three bare hosts become durable, are killed, and lose nothing
	@python tests/lab/demo.py up

demo-down: setup-docker ## remove the demo's hosts
	@python tests/lab/demo.py down

clean: ## remove labs, images, virtual environment and caches
	@[ ! -x .venv/bin/python ] || ! docker info >/dev/null 2>&1 || { python tests/lab/lab.py down --all; python tests/lab/lab.py purge-images; }
	rm -rf .venv .cache
