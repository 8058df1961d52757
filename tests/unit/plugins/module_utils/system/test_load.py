# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Loads from two texts of /proc, and what smartctl and sensors say; texts of a Debian 12 host, shortened."""

from __future__ import annotations

import json

import hypothesis
import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.system.load import (
    DiskUse,
    cpu_shares,
    disk_use,
    pressure,
)
from ansible_collections.redisops.recovery.plugins.module_utils.system.smart import (
    Drive,
    Sensor,
    parse_drive,
    parse_drives,
    parse_sensors,
)
from hypothesis import strategies

STAT = "cpu  100 0 50 800 40 0 5 5 0 0\ncpu0 100 0 50 800 40 0 5 5 0 0\nintr 1\n"
LATER = "cpu  110 0 60 850 60 0 5 15 0 0\ncpu0 1 0 1 1 1 0 0 0 0 0\nintr 9\n"
DISKS = "   8       0 sda 100 0 2000 50 200 0 4000 80 0 1000 130 0 0 0 0 0 0\n   8       1 sda1 1 0 2 3 4 0 5 6 0 7 8\n"
DISKS_LATER = DISKS.replace("2000 50 200 0 4000 80 0 1000", "6000 50 200 0 24000 80 0 1600")


def test_cpu_shares():
    shares = cpu_shares(STAT, LATER)
    assert (shares["iowait"], shares["steal"], shares["idle"]) == (20.0, 10.0, 50.0)
    assert cpu_shares(STAT, STAT) is None
    assert cpu_shares("", LATER) is None
    assert cpu_shares("cpu  1 2\n", LATER) is None
    older = cpu_shares("cpu  100 0 50 800 40\n", "cpu  100 0 50 900 40\n")
    assert older == {"user": 0, "nice": 0, "system": 0, "idle": 100, "iowait": 0}


def test_disk_use():
    assert disk_use(DISKS, DISKS_LATER, 2.0, (8, 0)) == DiskUse("sda", 1.024, 5.12, 30.0)
    assert disk_use(DISKS, DISKS_LATER, 2.0, (0, 43)) is None
    assert disk_use(DISKS, DISKS_LATER, 0.0, (8, 0)) is None
    assert disk_use("8 0 sda", DISKS, 1.0, (8, 0)) is None


def test_pressure():
    text = "some avg10=9.03 avg60=9.60 avg300=0.40 total=9\nfull avg10=0.03 avg60=12.57 avg300=0.34 total=8\n"
    assert pressure(text) == 12.57
    assert pressure("") is None
    assert pressure("some avg10=1.00 avg60=2.00 avg300=3.00 total=4\n") is None


ATA = {
    "smart_status": {"passed": True}, "temperature": {"current": 36, "op_limit_max": 60},
    "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 8}}, {"id": 9, "raw": {"value": 12345}}, {"id": 197, "raw": {"value": 2}}]},
}  # fmt: skip
NVME = {
    "smart_status": {"passed": False}, "temperature": {"current": 71},
    "nvme_smart_health_information_log": {"media_errors": 3, "percentage_used": 97},
}  # fmt: skip


def test_drives():
    assert parse_drive("/dev/sda", json.dumps(ATA)) == Drive("/dev/sda", True, 10, None, 36.0, 60.0)
    assert parse_drive("/dev/nvme0", json.dumps(NVME)) == Drive("/dev/nvme0", False, 3, 97, 71.0, None)
    scanned = {"devices": [{"name": "/dev/sda", "type": "sat"}, {"name": "-x", "type": "sat"}, {"name": "/dev/sdb"}]}
    assert parse_drives(json.dumps(scanned)) == [("/dev/sda", "sat")]


@pytest.mark.parametrize(
    "text", ["", "not JSON", "[]", "{}", '{"smart_status": 7, "ata_smart_attributes": {"table": 3}}', '{"devices": 4}']
)
def test_what_tells_nothing_is_none(text):
    assert parse_drive("/dev/sda", text) is None
    assert parse_drives(text) == []
    assert parse_sensors(text) == []


def test_sensors():
    text = json.dumps(
        {
            "coretemp-isa-0000": {
                "Adapter": "ISA adapter",
                "Core 0": {"temp2_input": 48.0, "temp2_max": 90.0, "temp2_crit": 100.0},
            },
            "nct6775-isa-0290": {"fan1": {"fan1_input": 900.0}, "SYSTIN": {"temp1_input": 31}},
        }
    )
    assert parse_sensors(text) == [
        Sensor("coretemp-isa-0000 Core 0", 48.0, 90.0, 100.0),
        Sensor("nct6775-isa-0290 SYSTIN", 31.0),
    ]


JUNK = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=9),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.sampled_from(["smart_status", "passed", "temp1_input", "table", "devices", "name", "id", "raw"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@hypothesis.given(JUNK)
def test_no_json_makes_it_stumble(content):
    text = json.dumps(content)
    parse_drive("/dev/sda", text)
    assert isinstance(parse_drives(text), list)
    assert isinstance(parse_sensors(text), list)


@hypothesis.given(strategies.text(), strategies.text())
def test_no_text_makes_it_stumble(one, other):
    cpu_shares(f"cpu  {one}", f"cpu  {other}")
    disk_use(f"8 0 {one}", f"8 0 {other}", 1.0, (8, 0))
    assert pressure(one) is None or pressure(one) >= 0
