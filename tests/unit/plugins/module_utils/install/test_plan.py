# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where Redis comes from."""

from __future__ import annotations

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Refusal
from ansible_collections.redisops.recovery.plugins.module_utils.install.plan import Wish, plan_install

DEBIAN11 = ("debian", "", "11", "bullseye", "apt")
DEBIAN12 = ("debian", "", "12", "bookworm", "apt")
DEBIAN13 = ("debian", "", "13", "trixie", "apt")
UBUNTU22 = ("ubuntu", "debian", "22.04", "jammy", "apt")
UBUNTU24 = ("ubuntu", "debian", "24.04", "noble", "apt")
UBUNTU26 = ("ubuntu", "debian", "26.04", "later", "apt")
RHEL8 = ("rhel", "fedora", "8.10", None, "dnf")
RHEL9 = ("rhel", "fedora", "9.4", None, "dnf")
ROCKY9 = ("rocky", ["rhel", "centos", "fedora"], "9.5", None, "dnf")
ALMA8 = ("almalinux", "rhel centos fedora", "8.9", None, "dnf")
SUSE = ("sles", "suse", "15.5", None, None)
NONE = {"installed": None, "product": None, "path": None}


def host(release, redis=NONE, redis_py=None):
    name, like, version, codename, manager = release
    release = {"id": name, "id_like": like, "version_id": version, "codename": codename}
    return {"os": release, "package_manager": manager, "redis": redis, "redis_py": redis_py}


def have(version, product="redis"):
    return {"installed": version, "product": product, "path": "/usr/bin/redis-server"}


def plan(release, source="auto", redis=NONE, redis_py=None, minimum="7.0", stream="redis:7", url="", **more):
    return plan_install(host(release, redis, redis_py), Wish(source, minimum, stream, url, **more))


@pytest.mark.parametrize(
    ("release", "source", "chosen", "packages"),
    [
        (DEBIAN12, "auto", "distribution", ["redis-server", "redis-tools", "python3-redis"]),
        (DEBIAN13, "auto", "distribution", ["redis-server", "redis-tools", "python3-redis"]),
        (DEBIAN11, "auto", "vendor", ["redis-server", "redis-tools", "python3-redis"]),
        (UBUNTU22, "auto", "vendor", ["redis-server", "redis-tools", "python3-redis"]),
        (UBUNTU24, "auto", "distribution", ["redis-server", "redis-tools", "python3-redis"]),
        (UBUNTU26, "auto", "distribution", ["redis-server", "redis-tools", "python3-redis"]),
        (RHEL9, "auto", "module_stream", ["@redis:7/common", "python3-redis"]),
        (ROCKY9, "auto", "module_stream", ["@redis:7/common", "python3-redis"]),
        (RHEL8, "vendor", "vendor", ["redis", "python3-redis"]),
        (ALMA8, "vendor", "vendor", ["redis", "python3-redis"]),
        (DEBIAN12, "vendor", "vendor", ["redis-server", "redis-tools", "python3-redis"]),
        (RHEL9, "vendor", "vendor", ["redis", "python3-redis"]),
        (UBUNTU26, "distribution", "distribution", ["redis-server", "redis-tools", "python3-redis"]),
    ],
)
def test_a_bare_host(release, source, chosen, packages):
    decided = plan(release, source)
    assert (decided["needed"], decided["source"], decided["packages"], decided["pip"]) == (True, chosen, packages, [])
    assert (decided["manager"], decided["fresh_install"], decided["codename"]) == (release[4], True, release[3])


@pytest.mark.parametrize(
    ("release", "more", "code", "says"),
    [
        (UBUNTU22, {"source": "distribution"}, "too_old", "ubuntu 22.04 carries Redis 6.0.16"),
        (DEBIAN11, {"source": "distribution"}, "too_old", "debian 11 carries Redis 6.0.16"),
        (RHEL9, {"source": "distribution"}, "too_old", "el 9 carries Redis 6.2.7"),
        (DEBIAN12, {"source": "distribution", "minimum": "7.2"}, "too_old", "Redis >= 7.2"),
        (DEBIAN12, {"redis": have("6.0.16")}, "too_old", "Redis 6.0.16 is installed"),
        (DEBIAN12, {"redis": have("6.2.22"), "redis_py": "5.0"}, "too_old", "Redis 6.2.22 is installed"),
        (UBUNTU22, {"redis": have("7.0.15"), "minimum": "7.2"}, "too_old", "Redis 7.0.15 is installed"),
        (DEBIAN12, {"source": "installed"}, "not_installed", "redis-py >= 3.5"),
        (DEBIAN12, {"source": "installed", "redis": have("7.0.15")}, "not_installed", "redis-py"),
        (DEBIAN12, {"source": "module_stream"}, "no_module_streams", "debian 12"),
        (DEBIAN12, {"source": "mirror"}, "no_mirror", "redis_install_mirror_url"),
        (DEBIAN12, {"source": "somewhere"}, "invalid_value", "one of auto, distribution"),
        (SUSE, {}, "no_package_manager", "sles 15.5"),
    ],
)
def test_what_is_refused(release, more, code, says):
    with pytest.raises(Refusal) as caught:
        plan(release, **more)
    assert caught.value.code == code
    assert says in caught.value.message()


@pytest.mark.parametrize(
    ("redis", "redis_py"),
    [
        (have("7.0.15"), "4.3.4"),
        (have("8.2.1"), "3.5.3"),
        (have("8.1.1", "valkey"), "5.0"),
        (have("7.2.4", "valkey"), "8.1.0"),
    ],
)
@pytest.mark.parametrize("release", [DEBIAN12, UBUNTU22, RHEL9, SUSE])
def test_nothing_to_do_where_it_is_there(release, redis, redis_py):
    decided = plan(release, redis=redis, redis_py=redis_py)
    assert (decided["needed"], decided["source"], decided["packages"], decided["fresh_install"]) == (
        False,
        "installed",
        [],
        False,
    )


@pytest.mark.parametrize("redis_py", [None, "2.10.6", "3.4.1"])
def test_redis_py_alone(redis_py):
    decided = plan(DEBIAN12, redis=have("7.0.15"), redis_py=redis_py)
    assert (decided["needed"], decided["packages"], decided["source"], decided["fresh_install"]) == (
        True,
        ["python3-redis"],
        "installed",
        False,
    )
    decided = plan(RHEL9, redis=have("7.0.15"), redis_py=redis_py, python_source="pip")
    assert (decided["packages"], decided["pip"]) == (["python3-pip"], ["redis"])


def test_an_old_release_with_a_good_server_needs_redis_py_only():
    assert plan(UBUNTU22, redis=have("7.2.4"))["packages"] == ["python3-redis"]


def test_names_of_packages_can_be_given():
    decided = plan(DEBIAN12, packages=["redis"], python_packages=["python3.12-redis"])
    assert decided["packages"] == ["redis", "python3.12-redis"]
    decided = plan(RHEL9, python_source="pip", python_packages=["redis==5.0"])
    assert (decided["packages"], decided["pip"]) == (["@redis:7/common", "python3-pip"], ["redis==5.0"])


def test_another_stream_and_a_mirror():
    assert plan(RHEL9, stream="valkey:8")["packages"][0] == "@valkey:8/common"
    assert plan(DEBIAN12, "mirror", url="https://mirror.example/deb")["source"] == "mirror"


def test_a_host_of_which_nothing_is_known():
    with pytest.raises(Refusal) as caught:
        plan_install({}, Wish("auto", "7.0", "redis:7", ""))
    assert caught.value.code == "no_package_manager"


@pytest.mark.parametrize(
    ("host", "options", "code"),
    [(RHEL8, {"source": "auto"}, "no_known_source"), (ALMA8, {"source": "module_stream"}, "no_known_source"),
     (DEBIAN12, {"python_source": "pip"}, "pip_not_for_apt")],
)  # fmt: skip
def test_what_would_be_a_guess_is_refused(host, options, code):
    with pytest.raises(Refusal) as caught:
        plan(host, **options)
    assert caught.value.code == code
