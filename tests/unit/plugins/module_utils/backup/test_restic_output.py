# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What restic prints, as recorded (fixtures/record_restic.py made it), and what a caller is predicted of it."""

from __future__ import annotations

import pathlib
import re

import pytest
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic import _PROBLEMS, FLOOR, Restic
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_location import Repository
from ansible_collections.redisops.recovery.plugins.module_utils.backup.restic_output import (
    Saved,
    error_of,
    parse_snapshots,
    parse_summary,
    parse_version,
)
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.host import TIMED_OUT, Completed, Host

HERE = pathlib.Path(__file__).parent
RECORDED = sorted((HERE / "fixtures" / "restic").glob("*.txt"))
VERSIONS = {path.name.split("-")[1] for path in RECORDED}
#: Case → kind of the error, and a word that its line has to have.
ERRORS = {
    "missing-local": ("missing", "no such file"),
    "missing-sftp": ("missing", "file does not exist"),
    "missing-s3": ("missing", "key does not exist"),
    "missing-s3-bucket": ("missing", "bucket does not exist"),
    "init-twice": ("other", "config file already exists"),
    "password": ("password", "wrong password"),
    "locked": ("locked", "already locked by PID"),
    "locked-json": ("locked", "already locked by PID"),
    "damaged-check": ("damaged", "repository contains errors"),
    "damaged-restore": ("damaged", "ciphertext verification failed"),
    "full-save": ("full", "no space left"),
    "full-lock": ("full", "no space left"),
    "unreachable-sftp": ("unreachable", "sftp session"),
    "unreachable-sftp-program": ("unreachable", "no such file"),
    "unreachable-rest": ("unreachable", "connection refused"),
    "unreachable-s3": ("unreachable", "connection refused"),
    "unreachable-s3-credentials": ("unreachable", "Access Key Id"),
    "incomplete": ("other", "at least one source file"),
}
ANSWERS = ("summary", "snapshots", "no-snapshots")
REPOSITORY = Repository(
    "off-site", "rest:http://user:hidden@backup:8000/one", "open sesame", {"AWS_SECRET_ACCESS_KEY": "s3cret"}
)


def case_of(path):
    return re.sub(r"^restic-[\d.]+-", "", path.stem)


def recorded(path):
    first, _newline, output = path.read_text().partition("\n")
    return int(first.split()[-1]), output


def fixture(version, case):
    return recorded(HERE / "fixtures" / "restic" / f"restic-{version}-{case}.txt")


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_there_is_a_recording_of_every_case(version):
    cases = {case_of(path) for path in RECORDED if path.name.startswith(f"restic-{version}-")}
    assert cases == {*ERRORS, *ANSWERS}


def test_versions_before_and_after_exit_codes_told_anything():
    assert min(VERSIONS) < "0.17" < max(VERSIONS)


@pytest.mark.parametrize("path", [path for path in RECORDED if case_of(path) in ERRORS], ids=lambda path: path.stem)
def test_recorded_errors(path):
    code, output = recorded(path)
    kind, words = ERRORS[case_of(path)]
    predicted = error_of(code, output)
    assert predicted.kind == kind
    assert words in predicted.line
    assert "\n" not in predicted.line
    assert not predicted.line.startswith(("{", "github.com"))


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_recorded_answers(version):
    saved = parse_summary(fixture(version, "summary")[1])
    assert saved.total == 3_000_000
    assert 3_000_000 <= saved.added < 3_010_000
    assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", saved.snapshot)
    (one,) = parse_snapshots(fixture(version, "snapshots")[1])
    assert (one.at, one.tags, one.hostname) == (1704164645, ("first", "second"), "one")
    assert one.original.startswith(saved.snapshot)
    assert one.id != one.original
    assert parse_snapshots(fixture(version, "no-snapshots")[1]) == []
    assert parse_summary(fixture(version, "incomplete")[1]).snapshot  # so that it can be taken out again
    assert parse_summary(fixture(version, "full-save")[1]) is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2024-01-02T03:04:05Z", 1704164645),
        ("2024-01-02T03:04:05.123456789Z", 1704164645),
        ("2024-01-02T05:04:05.1+02:00", 1704164645),
        ("2024-01-01T21:34:05-05:30", 1704164645),
    ],
)
def test_times_of_snapshots(text, at):
    (one,) = parse_snapshots(f'warning: something\n[{{"id":"ab","time":"{text}","tags":null}}]\n')
    assert (one.at, one.tags, one.hostname, one.original) == (at, (), "", "")


@pytest.mark.parametrize(
    "output", ["", "no list\n", "{}\n", '[{"id":"ab"}]', '[{"id":"ab","time":"yesterday"}]', "[1]", '[{"id":']
)
def test_what_is_no_list_of_snapshots(output):
    with pytest.raises(ValueError, match=r"printed no list|lacks|is no time"):
        parse_snapshots(output)


def test_no_snapshots_in_the_words_of_old_releases():
    assert parse_snapshots("null\n") == []


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("restic 0.14.0 compiled with go1.19.8 on linux/amd64\n", (0, 14, 0)),
        ("restic 0.18.0-dev (compiled manually) compiled with go1.24.4 on linux/amd64\n", (0, 18, 0)),
        ("restic 1.2\n", (1, 2, 0)),
        ("resting 1.2.3\n", None),
        ("", None),
    ],
)
def test_versions(output, version):
    assert parse_version(output) == version


@pytest.mark.parametrize(
    ("code", "kind"), [(10, "missing"), (11, "locked"), (12, "password"), (1, "other"), (130, "other"), (-9, "other")]
)
def test_an_exit_code_without_words(code, kind):
    predicted = error_of(code, "")
    assert predicted.kind == kind
    assert str(code) in predicted.line


def test_an_exit_code_counts_more_than_what_went_wrong_on_the_way():
    output = (
        "Stat(<config/>) returned error, retrying after 1s: connection refused\nFatal: wrong password or no key found\n"
    )
    assert error_of(12, output).kind == "password"
    assert error_of(10, "Load failed: permission denied\nFatal: repository does not exist: x\n").kind == "missing"


@pytest.mark.parametrize(
    "line",
    [
        "Fatal: unable to open config file: dial unix /run/rest.sock: connect: no such file or directory",
        "Fatal: unable to open repository at sftp:h:/r: fork/exec /usr/bin/ssh: no such file or directory",
        "Fatal: unable to open config file: stat /backup/config: permission denied",
        "Fatal: unable to open config file: Stat: Access Denied.",
        "Fatal: unable to open config file: unexpected HTTP response (403): 403 Forbidden",
    ],
)
def test_what_looks_like_no_repository_and_says_nothing_of_it(line):
    assert error_of(1, line).kind == "unreachable"


def test_the_hint_to_exit_codes_is_not_needed_for_rest_servers():
    assert (
        error_of(1, "Fatal: unable to open config file: Stat: unexpected HTTP response (404): 404 Not Found\n").kind
        == "missing"
    )


# --- what a caller is predicted ----------------------------------------------------------------------------------------------


def told_by(
    code, output, partial="", repository=REPOSITORY, method="exists", *arguments, version="restic 0.14.0 compiled"
):
    """The outcome of one call, with a restic that answers this."""

    def run(*args, timeout=None, environment=None, directory=None):
        return Completed(0, version) if args[1:] == ("version",) else Completed(code, output, partial)

    return getattr(Restic(Host("/", run), repository), method)(*arguments)


@pytest.mark.parametrize("path", [path for path in RECORDED if case_of(path) in ERRORS], ids=lambda path: path.stem)
def test_every_error_is_a_problem_with_its_code(path):
    code, output = recorded(path)
    kind = ERRORS[case_of(path)][0]
    if code == TIMED_OUT:
        code, partial, output = TIMED_OUT, output, "restic: no answer within 60 seconds"
    else:
        partial = ""
    with pytest.raises(Problem) as caught:
        told_by(code, output, partial, REPOSITORY, "check")
    assert caught.value.code == _PROBLEMS[kind][0]
    assert caught.value.detected.startswith("repository off-site (rest:http://user:***@backup:8000/one)")
    assert ("still trying after 60 seconds" in caught.value.detected) == bool(partial)


def test_a_place_without_a_repository_is_no_problem_for_exists():
    for version in sorted(VERSIONS):
        for case in ("missing-local", "missing-sftp", "missing-s3", "missing-s3-bucket"):
            code, output = fixture(version, case)
            assert told_by(code, "no answer" if code == TIMED_OUT else output, output) is False, (version, case)
        for case in set(ERRORS) - {"missing-local", "missing-sftp", "missing-s3", "missing-s3-bucket"}:
            code, output = fixture(version, case)
            with pytest.raises(Problem):
                told_by(code, "no answer" if code == TIMED_OUT else output, output)


def test_a_run_out_of_time():
    with pytest.raises(Problem) as caught:
        told_by(TIMED_OUT, "no answer within 60 seconds", "using temporary cache\nload indexes\n", REPOSITORY, "check")
    assert caught.value.code == "restic_timeout"
    assert "60 seconds" in caught.value.detected


@pytest.mark.parametrize(
    ("version", "reported"),
    [
        (Completed(127, "restic: not found"), "not installed"),
        (Completed(126, "restic: permission denied"), "not installed"),
        (Completed(0, "restic 0.11.9 compiled"), "0.11.9 is installed"),
        (Completed(0, "something else"), "something else"),
    ],
)
def test_a_restic_that_cannot_be_used(version, reported):
    with pytest.raises(Problem) as caught:
        Restic(Host("/", lambda *args, **options: version), REPOSITORY).snapshots()
    assert caught.value.code == "restic_missing"
    assert reported in caught.value.detected
    assert ".".join(map(str, FLOOR)) in caught.value.needs


def test_no_secret_is_in_what_is_said():
    secrets = ("open sesame", "hidden", "s3cret")
    with pytest.raises(Problem) as caught:
        told_by(1, f"Fatal: {' and '.join(secrets)} failed\n")
    text = f"{caught.value} {caught.value.message()} {caught.value!r} {REPOSITORY!r} {REPOSITORY.shown}"
    assert "*** and *** and *** failed" in text
    assert not [secret for secret in secrets if secret in text]


def test_a_password_that_is_a_common_word_disturbs_nothing():
    """Masked is what is reported, not what is read."""
    repository = Repository("one", "/backup", "a")
    assert len(told_by(*fixture("0.14.0", "snapshots"), "", repository, "snapshots")) == 1
    with pytest.raises(Problem) as caught:
        told_by(*fixture("0.14.0", "password"), "", repository)
    assert caught.value.code == "repository_password"


def test_what_restic_gets():
    seen = []

    def run(*args, timeout=None, environment=None, directory=None):
        seen.append((args, timeout, environment, directory))
        if args[1] == "version":
            return Completed(0, "restic 0.18.0")
        return Completed(
            0, '{"message_type":"summary","data_added":5,"total_bytes_processed":7,"snapshot_id":"' + "ab" * 32 + '"}'
        )

    repository = Repository(
        "one", "s3:https://s3/bucket", "pw", {"AWS_REGION": "eu"}, ("s3.layout=default",), "/var/cache/x"
    )
    saved = Restic(Host("/", run), repository).save("/data", ["a", "b"], 1704164645, 9.0, "r1")
    assert saved == Saved("ab" * 32, 5, 7)
    args, timeout, environment, directory = seen[-1]
    assert args[:5] == ("restic", "-o", "s3.layout=default", "--cache-dir=/var/cache/x", "backup")
    assert {"--time=2024-01-02 03:04:05", "--host=r1", "--tag=a", "--tag=b", "."} <= set(args)
    assert (timeout, directory) == (9.0, "/data")
    assert environment["TZ"] == "UTC"
    assert environment["AWS_REGION"] == "eu"
    assert (environment["RESTIC_REPOSITORY"], environment["RESTIC_PASSWORD"]) == ("s3:https://s3/bucket", "pw")
    assert environment["RESTIC_PASSWORD_FILE"] == ""
    assert not [word for call in seen for word in call[0] if "pw" in word or "bucket" in word]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("fetch", ("latest", "/target", 5)),
        ("fetch", ("--help12", "/target", 5)),
        ("tag", ("abcdef12", "a,b")),
        ("tag", ("abc", "a")),
        ("forget", (["abcdef12", "-x"], True)),
        ("snapshots", ("a,b",)),
        ("save", ("/data", [""], 0, 5, "r1")),
        ("save", ("/data", [" a"], 0, 5, "r1")),
    ],
)
def test_words_that_restic_would_understand_differently(method, arguments):
    with pytest.raises(Problem) as caught:
        told_by(0, '[{"id":"abcdef1200","time":"2024-01-02T03:04:05Z"}]', "", REPOSITORY, method, *arguments)
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize(
    "repository",
    [
        Repository("one", "", "pw"),
        Repository("one", "/backup", ""),
        Repository("one", "/backup", "p\0w"),
        Repository("one", "/backup", "pw", {"A=B": "1"}),
        Repository("one", "/backup", "pw", {"A": "\0"}),
    ],
)
def test_a_repository_that_cannot_be(repository):
    with pytest.raises(Problem) as caught:
        Restic(Host(), repository)
    assert caught.value.code == "invalid_value"
    assert "pw" not in caught.value.message().replace("password", "")


def test_every_code_has_its_paragraph():
    headings = set(re.findall(r"^### `([a-z_]+)`", (HERE.parents[4] / "docs/reference/refusals.md").read_text(), re.M))
    assert {code for code, *_rest in _PROBLEMS.values()} | {"restic_missing"} <= headings
