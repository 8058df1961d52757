#!/bin/sh
# Everything that reads the sources without running them. Each line says what it checks; the first that fails ends it.
set -eu
cd "$(dirname "$0")/../.."
step() { printf '==> lint: %s\n' "$1" >&2; }

step "ruff (Python)"
ruff check --quiet .
ruff format --quiet --check .
step "yamllint (YAML)"
git ls-files '*.yml' '*.yaml' | xargs yamllint --strict -c .config/yamllint.yml
step "ansible-lint (roles, playbooks, module documentation)"
ansible-lint --offline -q -c .config/ansible-lint.yml
step "changelog fragments"
antsibull-changelog lint
