#!/bin/sh
# Sets this checkout up for work: virtual environment, collection path, redis-server, nft and restic for the tests, Docker.
# Usage: setup.sh venv | redis | servers | docker
# What can be installed is installed, and said; what cannot is one sentence with the command to run.
set -eu
cd "$(dirname "$0")/../.."
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '==> %s\n' "$*" >&2; }
stop() { printf 'make: %s\n' "$*" >&2; exit 1; }

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
    say "installing $* with apt-get"
    apt-get update -qq >/dev/null 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >.cache/apt.log 2>&1 ||
        stop "apt-get could not install $*; see .cache/apt.log"
}

find_python() {
    # Not the one of the environment that is about to be made anew.
    PATH=$(printf '%s' "$PATH" | sed "s#$PWD/.venv/bin:##g")
    for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

setup_venv() {
    mkdir -p .cache/collections/ansible_collections/redisops
    ln -sfn ../../../.. .cache/collections/ansible_collections/redisops/recovery
    wanted=$(cksum <requirements-dev.txt)
    if [ -x .venv/bin/python ] && [ "$(cat .venv/.requirements 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    python=$(find_python) || stop "Python 3.11 to 3.13 is needed and was not found; install it (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12"
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        can_apt || stop "$python has no venv module; run: apt-get install python3-venv"
        apt_install python3-venv
    fi
    say "making .venv with $("$python" --version), about a minute"
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --no-compile -r requirements-dev.txt || stop "pip could not install requirements-dev.txt; see above"
    # Byte code once, where the environment forbids Python to write it as it goes: every start of Ansible is three times faster.
    (unset PYTHONDONTWRITEBYTECODE
     cd .venv/lib/python3*/site-packages
     ../../../bin/python -m compileall -q -j 2 ansible ansiblelint molecule redis docker jinja2 yaml _pytest pytest testinfra requests urllib3 rich \
         hypothesis ansible_collections/community/docker ansible_compat jsonschema cryptography || true)
    printf '%s\n' "$wanted" >.venv/.requirements
    say ".venv is ready"
}

recent_redis() {
    version=$("$1" --version 2>/dev/null | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
    [ "${version:-0}" -ge 7 ]
}

link_redis() {
    # Debian's redis-tools holds the whole binary, which acts by the name it is called; the package redis-server would start a service here.
    tool=$(command -v redis-check-rdb) && ln -sf "$tool" .cache/bin/redis-server && recent_redis .cache/bin/redis-server
}

setup_redis() {
    mkdir -p .cache/bin
    if command -v redis-cli >/dev/null && { recent_redis redis-server || link_redis; }; then
        return
    fi
    if can_apt; then
        apt_install redis-tools
    fi
    if ! recent_redis redis-server && ! link_redis; then
        rm -f .cache/bin/redis-server
        stop "the tests need redis-server >= 7.0 and redis-cli in the PATH; on Debian 12, Ubuntu 24.04 or newer run: apt-get install redis-tools redis-server"
    fi
}

setup_nft() {
    # Only the tools: the tests load their rules in network namespaces of their own.
    if (PATH="$PATH:/usr/sbin:/sbin"; command -v nft && command -v ip) >/dev/null; then
        return
    fi
    can_apt || stop "the tests need nft and ip in the PATH; on Debian or Ubuntu run: apt-get install nftables iproute2"
    apt_install nftables iproute2
}

setup_restic() {
    # The repositories of backups; SFTP is spoken to the server's program itself, without a daemon.
    missing=""
    command -v restic >/dev/null || missing="restic"
    [ -x /usr/lib/openssh/sftp-server ] || missing="$missing openssh-sftp-server"
    [ -n "$missing" ] || return 0
    can_apt || stop "the tests need restic and /usr/lib/openssh/sftp-server; on Debian or Ubuntu run: apt-get install restic openssh-sftp-server"
    # shellcheck disable=SC2086
    apt_install $missing
}

setup_promtool() {
    # Prometheus' own judge of metrics and alert rules. The package would start a server here, so only the tool is taken out of it.
    if command -v promtool >/dev/null || [ -x .cache/bin/promtool ]; then
        return
    fi
    command -v dpkg-deb >/dev/null && command -v apt-get >/dev/null ||
        stop "the tests need promtool in the PATH; it comes with Prometheus (https://prometheus.io/download/)"
    say "taking promtool out of Debian's package prometheus"
    mkdir -p .cache/promtool .cache/bin
    (cd .cache/promtool && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; }) >>.cache/apt.log 2>&1 ||
        stop "the package prometheus could not be fetched; see .cache/apt.log"
    dpkg-deb -x .cache/promtool/prometheus_*.deb .cache/promtool/root
    mv .cache/promtool/root/usr/bin/promtool .cache/bin/promtool
    rm -rf .cache/promtool
}

setup_patchelf() {
    # Programs of Debian's newer suites are made to use the libraries that they were linked to.
    if command -v patchelf >/dev/null; then
        return
    fi
    can_apt || stop "another server than the installed one needs patchelf in the PATH; on Debian or Ubuntu run: apt-get install patchelf"
    apt_install patchelf
}

setup_chromium() {
    # The report's page is tested in a real browser.
    if command -v chromedriver >/dev/null && { command -v chromium || command -v google-chrome; } >/dev/null; then
        return
    fi
    # Ubuntu's package of that name is a snap, which a driver cannot start as root.
    can_apt && ! grep -qi '^ID=ubuntu' /etc/os-release ||
        stop "the tests need chromium or google-chrome, and the chromedriver for it, in the PATH; on Debian: apt-get install chromium chromium-driver"
    apt_install chromium chromium-driver
}

setup_docker() {
    if docker info >/dev/null 2>&1; then
        return
    fi
    if ! command -v dockerd >/dev/null; then
        can_apt || stop "the lab needs a Docker engine; as root on Debian or Ubuntu run: apt-get install docker.io"
        apt_install docker.io
    fi
    [ "$(id -u)" = 0 ] || stop "Docker is installed, but does not answer this user; as root run: systemctl start docker && usermod -aG docker $(id -un)"
    say "starting the Docker engine"
    if [ -d /run/systemd/system ]; then
        systemctl start docker || true
    elif command -v service >/dev/null && service docker start >/dev/null 2>&1; then
        :
    else
        nohup dockerd >.cache/dockerd.log 2>&1 &
    fi
    for _ in $(seq 60); do
        if docker info >/dev/null 2>&1; then
            return
        fi
        sleep 1
    done
    stop "the Docker engine did not start within a minute; look at: journalctl -u docker (or .cache/dockerd.log)"
}

mkdir -p .cache
case "${1:-}" in
    venv) setup_venv ;;
    redis) setup_redis; setup_nft; setup_restic; setup_promtool; setup_chromium ;;
    servers) setup_patchelf ;;
    docker) setup_docker; setup_promtool ;;
    *) stop "usage: setup.sh venv | redis | servers | docker" ;;
esac
