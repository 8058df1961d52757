# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modes as people write them: octal text, and the numbers that YAML makes of octal digits without quotes."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.server.config_plan import text_of
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import parse_mode, parse_umask, with_umask


@pytest.mark.parametrize("digits", ["0600", "0640", "0644", "0660", "0664", "0666", "0700", "0750", "0770", "0777"])
def test_with_or_without_quotes_is_the_same(digits):
    assert parse_mode(digits) == parse_mode(yaml.safe_load(digits)) == int(digits, 8)


@pytest.mark.parametrize(
    "given",
    [
        "432",  # what Jinja makes of the number 432, once it is inside other text
        "416", "660", "00660", "0o660", "u=rw,g=rw", "", "0680", " 0660", "٠٦٦٠", "0660\n",
        660, 640, 600, 1000, -1, 0, True, None, 432.0, ["0660"], {},
        "0444", "0060", "0200", 0o444,
    ],
)  # fmt: skip
def test_what_is_no_mode_is_one_clear_error(given):
    with pytest.raises(Problem) as caught:
        parse_mode(given, "config_mode", "0640")
    assert caught.value.code == "invalid_value"
    text = caught.value.message()
    assert text.startswith("config_mode is ")
    assert 'Do: set config_mode: "0640"' in text
    assert "in quotes" in text


def test_a_directory_has_to_be_entered_and_a_key_only_read():
    assert parse_mode("0750", "dir_mode", "0750", 0o700) == 0o750
    assert parse_mode("0400", least=0o400) == 0o400
    with pytest.raises(Problem, match="could not read, write and enter it"):
        parse_mode("0660", "dir_mode", "0750", 0o700)


@pytest.mark.parametrize("digits", ["0007", "0022", "0027", "0077"])
def test_umask(digits):
    assert with_umask({"UMask": yaml.safe_load(digits), "Nice": 1}) == {"UMask": digits, "Nice": 1}
    assert parse_umask(digits) == int(digits, 8)


def test_a_umask_that_is_none():
    assert with_umask({"Nice": 1}) == {"Nice": 1}
    assert with_umask({"UMask": ""}) == {"UMask": ""}
    for given in ("23", "27", 0o277, "0700"):
        with pytest.raises(Problem) as caught:
            with_umask({"UMask": given})
        assert 'Do: set UMask: "0007"' in caught.value.message()


@pytest.mark.parametrize("given", ["0770", "770", 770, "0", "0600"])
def test_mode_of_the_socket(given):
    assert text_of("unixsocketperm", given) == str(given)


@pytest.mark.parametrize("given", [0o770, 0o660, 0o700, 0o777, "0070", "rw"])
def test_a_mode_of_the_socket_without_quotes(given):
    with pytest.raises(Problem) as caught:
        text_of("unixsocketperm", given)
    assert 'Do: set unixsocketperm: "0770"' in caught.value.message()
