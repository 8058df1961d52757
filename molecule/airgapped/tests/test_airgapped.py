# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Redis came from the mirror, and nowhere else could it have come from."""

from __future__ import annotations

from lab_hosts import LabHost


def test_there_is_no_way_out(lab_host: LabHost) -> None:
    assert "default" not in lab_host.run("ip route")


def test_redis_is_recent_and_durable(lab_host: LabHost) -> None:
    assert int(lab_host.info("redis_version").split(".")[0]) >= 7
    assert lab_host.config("appendonly") == "yes"


def test_the_data_is_where_it_was_declared(lab_host: LabHost) -> None:
    assert lab_host.config("dir") == "/data/redis"
    assert lab_host.run("stat -c '%U:%G %a' /data/redis") == "redis:redis 750"
    lab_host.cli("SET", "kept", "1")
    lab_host.cli("SAVE")
    lab_host.kill()
    assert lab_host.cli("GET", "kept") == "1"
    assert lab_host.run("ls /data/redis/dump.rdb /data/redis/appendonlydir/appendonly.aof.manifest")


def test_the_repository_is_the_mirror(lab_host: LabHost) -> None:
    if lab_host.unit == "redis-server":
        assert "file:/opt/mirror" in lab_host.run("apt-cache policy redis-server")
    else:
        assert "redisops-redis" in lab_host.run("dnf -q repolist")
