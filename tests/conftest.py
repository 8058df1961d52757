# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all tests share: the collection's import path, and running a module in this process."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import types
import typing as t

import hypothesis
import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / ".cache" / "collections"


def pytest_configure() -> None:
    # How long an example takes says something of the machine, nothing of the code; and CI has to see what a developer detected.
    hypothesis.settings.register_profile("house", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("house")
    link = COLLECTIONS / "ansible_collections" / "redisops" / "recovery"
    if not (link / "galaxy.yml").exists():
        raise pytest.UsageError("the collection is not linked into .cache/collections: run `make setup` first")
    _AnsibleCollectionFinder(paths=[str(COLLECTIONS)])._install()


_LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without root, what needs it is left out, and said: a failure would say nothing of the code."""
    if os.geteuid() == 0:
        return
    left_out = [item for item in items if item.get_closest_marker("needs_root")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        config.stash[_LEFT_OUT] = len(left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: t.Any) -> None:
    # Each worker collects the same tests.
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if count := terminalreporter.config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{count} tests were NOT run: they need root (they mount file systems, make network namespaces or write kernel"
            " settings, and put them back). As root: make modules"
        )


class ModuleExit(BaseException):
    """Raised in place of the process exit of exit_json and fail_json, so that nothing runs on behind it."""

    def __init__(self, result: dict[str, t.Any]) -> None:
        super().__init__(result.get("msg", ""))
        self.result = result


def call_module(name: str, check: bool = False, **params: t.Any) -> types.SimpleNamespace:
    """Run one module of this collection in this process; its result's keys become attributes (``failed`` always)."""
    module = importlib.import_module(f"ansible_collections.redisops.recovery.plugins.modules.{name}")

    def leave(failed: bool) -> t.Callable[..., None]:
        def stop(self: t.Any, msg: str = "", **result: t.Any) -> None:
            raise ModuleExit({"changed": False, **result, "msg": msg, "failed": failed, "warned": list(warned)})

        return stop

    warned: list[str] = []
    arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp"}
    with pytest.MonkeyPatch.context() as patch, patch_module_args(arguments):
        patch.setattr(basic.AnsibleModule, "exit_json", leave(False))
        patch.setattr(basic.AnsibleModule, "fail_json", leave(True))
        patch.setattr(basic.AnsibleModule, "warn", lambda self, text: warned.append(text))
        try:
            module.main()
        except ModuleExit as done:
            json.dumps(done.result)  # a result that is no JSON would fail for real
            return types.SimpleNamespace(**done.result)
    raise AssertionError(f"{name} returned without a result")


@pytest.fixture(name="call_module")
def _call_module() -> t.Callable[..., types.SimpleNamespace]:
    return call_module
