# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each drift is reported in check mode and corrected, and nothing else changes."""

from __future__ import annotations

import json
import subprocess

from lab_hosts import ROOT, LabHost, Record, changed, ours

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
        said = [line.split(None, 1)[1].strip('"') for line in text if line.startswith(name + " ")]
        assert (
            said == []
            or said[-1]
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
