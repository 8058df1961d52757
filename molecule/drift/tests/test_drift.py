# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each drift is reported in check mode and corrected, and nothing else changes."""

from __future__ import annotations

import json
import pathlib
import subprocess

from lab_hosts import ROOT, LabHost, Record, changed, last_run_changed, ours, play, ran, reported

#: What has to be found on every host, as the start of a line of the diff's before side.
EXPECTED = {
    "file: tcp-backlog 64",
    "file: appendfsync no",
    "file: appendfilename other.aof",
    "file: vm.overcommit_memory 2",
    "live: save",
    "live: appendonly no",
    "live: replica-read-only no",
    "mode: /etc/redis/redis.conf",
    "mode: /var/lib/redis/dump.rdb",
    "boot: {unit} enabled no",
}
MISSING = {"unit: /etc/systemd/system/{unit}.service.d/zz-redisops.conf", "file: enabled never", "file: defrag never"}


def lines(record: Record, host: LabHost, side: str, check: bool) -> list[str]:
    run = record.converges(check=True)[0] if check else record.converges(check=False)[-2]
    return [line for entry in ours(run, host.name) for line in entry[side]]


def test_check_mode_reports_each_drift_and_nothing_else(record: Record, lab_host: LabHost) -> None:
    found = lines(record, lab_host, "before", check=True)
    expected = {text.format(unit=lab_host.unit) for text in EXPECTED}
    for text in expected:
        assert any(line.startswith(text) for line in found), (text, found)
    assert [line for line in found if not any(line.startswith(text) for text in expected)] == []
    after = lines(record, lab_host, "after", check=True)
    for text in MISSING:
        assert any(line.startswith(text.format(unit=lab_host.unit)) for line in after), (text, after)


def test_the_real_run_did_what_check_mode_said(record: Record, lab_host: LabHost) -> None:
    assert ours(record.converges(check=True)[0], lab_host.name) == ours(
        record.converges(check=False)[-2], lab_host.name
    )
    assert changed(record.converges(check=False)[-1]) == 0


def test_the_host_is_as_it_was(lab_host: LabHost) -> None:
    done = subprocess.run(
        ["docker", "exec", "-i", lab_host.container, "python3", "-", "/root/now.json"],
        input=(ROOT / "molecule/shared/files/picture.py").read_bytes(), capture_output=True, check=True,
    )  # fmt: skip
    now, right = json.loads(done.stdout), json.loads(lab_host.run("cat /root/right.json"))
    data = "/var/lib/redis/"
    owner = right["files"]["/etc/redis/redis.conf"][:2]
    found = [values for path, values in now["files"].items() if path.startswith(data) and "." in path.rsplit("/", 1)[1]]
    assert len(found) >= 4  # RDB, base, increment, manifest
    assert all(values[:2] == owner and values[2] in ("0o100660", "0o100640") for values in found)
    for picture in (now, right):
        picture["files"] = {path: values for path, values in picture["files"].items() if not path.startswith(data)}
    for path in ("/etc/redis/redis.conf", "/etc/sysctl.d/99-zz-redis.conf"):
        # Corrected in place or appended: the words are what counts, and they are read below.
        now["files"][path][3] = right["files"][path][3] = ""
    assert now == right


def test_file_says_what_it_said(lab_host: LabHost) -> None:
    text = lab_host.run("grep -vE '^ *(#|$)' /etc/redis/redis.conf").splitlines()
    for name in ("tcp-backlog", "appendfsync", "appendfilename", "appendonly"):
        reported = [line.split(None, 1)[1].strip('"') for line in text if line.startswith(name + " ")]
        assert (
            reported == []
            or reported[-1]
            == {
                "tcp-backlog": "511",
                "appendfsync": "everysec",
                "appendfilename": "appendonly.aof",
                "appendonly": "yes",
            }[name]
        )


def test_no_key_was_lost_on_the_way(lab_host: LabHost) -> None:
    assert lab_host.cli("DBSIZE") == "1001"
    lab_host.kill()
    assert lab_host.cli("DBSIZE") == "1001"
    assert lab_host.cli("GET", "written-while-the-aof-was-off") == "1"


# The playbook drift; last, since it drifts anew.


def test_the_playbook_drift_says_it_and_changes_nothing(hosts: dict[str, LabHost], tmp_path: pathlib.Path) -> None:
    # Since the run before, the server's own rewrite and the way of the tests may have left marks: start from right.
    play("site")
    predicted = play("drift")
    assert "No drift on 2 hosts." in predicted
    assert last_run_changed() == 0

    d1, d2 = hosts["d1"], hosts["d2"]
    d1.cli("CONFIG", "SET", "save", "")
    d1.cli("CONFIG", "SET", "hz", "77")
    d2.run("echo 'tcp-backlog 64' >> /etc/redis/redis.conf")
    before = {name: host.run("md5sum /etc/redis/redis.conf") + host.live_config() for name, host in hosts.items()}
    file = tmp_path / "drift.json"
    done = ran("redisops.recovery.drift", "-e", f"redisops_drift_file={file}")
    assert done.returncode == 2, done.stdout[-3000:]
    assert "1 of them in what recovery depends on" in reported(done)
    found = json.loads(file.read_text())
    rows = [(row["host"], row["layer"], row["name"], row["found"], row["critical"]) for row in found["rows"]]
    assert rows[0] == ("d1", "live", "save", '""', True)
    assert ("d2", "file", "tcp-backlog", "64", False) in rows
    assert all(row["since"] for row in found["rows"] if row["name"] == "tcp-backlog" and row["layer"] == "file")
    assert {
        name: host.run("md5sum /etc/redis/redis.conf") + host.live_config() for name, host in hosts.items()
    } == before
    assert play("drift", "-e", "redisops_drift_fails=false")

    d2.run("echo 'this is no directive' >> /etc/redis/redis.conf")  # a host on which a role has to refuse
    refused = ran("redisops.recovery.drift", "-e", f"redisops_drift_file={file}")
    assert refused.returncode == 2
    rows = [(row["host"], row["name"]) for row in json.loads(file.read_text())["rows"]]
    assert ("d2", "refused") in rows
    assert ("d1", "save") in rows  # and the others are compared all the same
    d2.run("sed -i '/this is no directive/d' /etc/redis/redis.conf")

    play("site")
    assert "No drift on 2 hosts." in play("drift")
