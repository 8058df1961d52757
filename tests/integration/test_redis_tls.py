# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""redis_tls against a real server; openssl s_client, redis-cli --tls, stat and the bytes of files are the judges."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import types

import pytest

from tests.support import pki
from tests.support.topology import free_port

COLLECTIONS = pathlib.Path(__file__).resolve().parents[2] / ".cache" / "collections"
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(name="ca", scope="module")
def _ca():
    return pki.authority()


@pytest.fixture(name="other_ca", scope="module")
def _other_ca():
    return pki.authority("Another CA")


@pytest.fixture(name="pair", scope="module")
def _pair(ca):
    return pki.server(ca)


@dataclasses.dataclass
class Tls:
    """One server under test with the options that declare TLS for it, and independent eyes on what it serves."""

    server: object
    ca: pki.Pair
    call: object
    port: int

    @property
    def folder(self) -> pathlib.Path:
        return self.server.home / "tls"

    @property
    def files(self) -> dict[str, str]:
        return {
            "tls_cert_file": str(self.folder / "redis.crt"),
            "tls_key_file": str(self.folder / "redis.key"),
            "tls_ca_cert_file": str(self.folder / "ca.crt"),
        }

    def login(self, **more):
        """Options of a login over TLS, with certificates outside of the directory that the module keeps."""
        home = self.server.home.parent / "client"
        home.mkdir(exist_ok=True)
        client = pki.server(self.ca, purposes=pki.CLIENT, subject="test client")
        for name, text in (("ca.crt", self.ca.pem), ("client.crt", client.pem), ("client.key", client.key)):
            (home / name).write_text(text)
        return {
            "login_port": self.port, "tls": True, "ca_certs": str(home / "ca.crt"), "client_cert_file": str(home / "client.crt"),
            "client_key_file": str(home / "client.key"), **more,
        }  # fmt: skip

    def params(self, **more):
        base = {**self.files, "group": str(os.getegid()), "owner": str(os.geteuid()), "tls_port": self.port}
        return self.server.params(**{**base, **more})

    def run(self, check=False, **more):
        return self.call("redis_tls", check=check, **self.params(**more))

    def settled(self, **more):
        """Check, run, run again: check predicted the run, and the second run changes nothing."""
        predicted = self.run(check=True, **more)
        assert not predicted.failed, predicted.msg
        done = self.run(**more)
        assert not done.failed, done.msg
        assert (predicted.changed, predicted.diff, predicted.actions, predicted.restart_required, predicted.pending) == (
            done.changed, done.diff, done.actions, done.restart_required, done.pending,
        )  # fmt: skip
        again = self.run(**more)
        assert (again.failed, again.changed, again.actions, again.diff) == (
            False,
            False,
            [],
            {"before": "", "after": ""},
        ), again
        return done

    def picture(self):
        tree = self.server.tree()
        access = {
            path: os.stat(path).st_mode
            for path in sorted(map(str, self.server.home.rglob("*")))
            if os.path.exists(path)
        }
        return tree, access, self.server.live_config()

    def refused(self, code, **more):
        before = self.picture()
        for check in (True, False):
            result = self.run(check=check, **more)
            assert result.failed, result
            assert result.code == code, result.msg
            assert "Unexpected" not in result.msg
            assert self.picture() == before
        return result

    # --- independent eyes -------------------------------------------------------------------------------------------------

    def s_client(self, *arguments):
        """What openssl says of the port, with the CA of the test."""
        authority = self.server.home.parent / "authority.pem"
        authority.write_text(self.ca.pem)
        return subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile", str(authority), "-verify_return_error", *arguments],
            input="", capture_output=True, text=True, timeout=20, check=False,
        ).stdout  # fmt: skip

    def served(self):
        """SHA-256 of the certificate that the port serves, as openssl sees it."""
        found = re.search(r"-----BEGIN.*?-----END CERTIFICATE-----", self.s_client(), re.S)
        assert found
        reported = subprocess.run(
            ["openssl", "x509", "-noout", "-fingerprint", "-sha256"],
            input=found.group(0),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return reported.strip().rpartition("=")[2].replace(":", "").lower()

    def cli(self, *words, port=None):
        login = self.login()
        done = subprocess.run(
            ["redis-cli", "--tls", "--cacert", login["ca_certs"], "--cert", login["client_cert_file"], "--key",
             login["client_key_file"], "-p", str(port or self.port), *words],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return (done.stdout + done.stderr).rstrip("\n")


@pytest.fixture(name="tls")
def _tls(call_module, redis_server, ca):
    return Tls(redis_server, ca, call_module, free_port())


@pytest.fixture(name="given")
def _given(pair, ca):
    return {"certificate": pair.pem, "key": pair.key, "ca": ca.pem}


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# --- given certificates -----------------------------------------------------------------------------------------------


def test_a_running_server_speaks_tls_without_a_restart(tls, given, pair):
    tls.server.start().fill(10)
    pid, run_id = tls.server.info("process_id"), tls.server.info("run_id")
    done = tls.settled(**given)
    assert done.restart_required == []
    assert "Verify return code: 0 (ok)" in tls.s_client()
    assert tls.served() == pair.fingerprint
    assert tls.cli("PING") == "PONG"
    assert (tls.server.info("process_id"), tls.server.info("run_id")) == (pid, run_id)
    assert [mode_of(path) for path in tls.files.values()] == [0o644, 0o640, 0o644]
    assert mode_of(tls.folder) == 0o755
    assert sorted(path.name for path in tls.folder.iterdir()) == ["ca.crt", "redis.crt", "redis.key"]
    tls.server.restart()
    assert tls.served() == pair.fingerprint
    assert tls.server.keys() == 10
    assert tls.run(**given).changed is False


def test_the_certificate_is_reported(tls, given, pair):
    tls.server.start()
    predicted = tls.run(check=True, **given).certificate
    assert predicted["served"] is False
    reported = tls.settled(**given).certificate
    assert reported["served"] is True
    assert reported["fingerprint"] == pair.fingerprint
    assert reported["names"] == ["localhost", "127.0.0.1"]
    assert reported["subject"] == "CN=redis under test"
    assert reported["issuer"] == "CN=Test CA"
    assert reported["days_left"] == 364
    assert reported["not_after"] == pair.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_client_without_a_certificate_is_let_in_where_declared(tls, given):
    tls.server.start()
    tls.settled(**given)
    without = ["redis-cli", "--tls", "--cacert", tls.login()["ca_certs"], "-p", str(tls.port), "PING"]
    assert "PONG" not in subprocess.run(without, capture_output=True, text=True, check=False, timeout=20).stdout
    tls.settled(**given, tls_auth_clients="optional")
    assert subprocess.run(without, capture_output=True, text=True, check=False, timeout=20).stdout == "PONG\n"
    tls.settled(**given, tls_auth_clients="no")
    assert tls.server.config("tls-auth-clients") == "no"


def test_protocols(tls, given):
    tls.server.start()
    tls.settled(**given, tls_protocols=["TLSv1.3"])
    login = tls.login()
    mine = ["-cert", login["client_cert_file"], "-key", login["client_key_file"]]
    assert "Verify return code: 0 (ok)" in tls.s_client("-tls1_3", *mine)
    assert "-----BEGIN CERTIFICATE" not in tls.s_client("-tls1_2", *mine)


def test_a_stopped_server_gets_files_and_serves_them_from_its_start(tls, given, pair):
    done = tls.settled(**given)
    assert done.running is False
    assert done.certificate["served"] is None
    tls.server.start()
    assert tls.served() == pair.fingerprint


def test_what_stands_beside_a_certificate_gets_into_no_file(tls, given, pair, other_ca):
    """A combined PEM file is common; its key must not land in a file for everybody."""
    tls.server.start()
    tls.settled(
        **{**given, "certificate": pair.key + pair.pem, "ca": "# our authorities\n" + given["ca"] + other_ca.key}
    )
    assert "PRIVATE" not in (tls.folder / "redis.crt").read_text()
    assert (tls.folder / "ca.crt").read_text() == given["ca"]


def test_drift_of_files_modes_and_directives_is_corrected(tls, given, pair):
    tls.server.start()
    tls.settled(**given)
    (tls.folder / "redis.key").chmod(0o644)
    tls.server.cli("CONFIG", "SET", "tls-auth-clients", "no")
    tls.server.conf.write_text(tls.server.conf.read_text().replace(f"tls-port {tls.port}", "tls-port 1"))
    (tls.folder / "ca.crt").unlink()
    done = tls.settled(**given)
    assert "live: tls-auth-clients no\n" in done.diff["before"]
    assert "file: tls-port 1\n" in done.diff["before"]
    assert "0644" in done.diff["before"]
    assert mode_of(tls.folder / "redis.key") == 0o640
    assert tls.server.config("tls-auth-clients") == "yes"
    assert (tls.folder / "ca.crt").read_text() == given["ca"]


def test_after_config_rewrite_nothing_changes(tls, given):
    tls.server.start()
    tls.settled(**given, tls_replication=True)
    tls.server.cli("CONFIG", "REWRITE")
    assert tls.run(**given, tls_replication=True).changed is False


def test_an_intermediate_authority(tls, ca):
    tls.server.start()
    between = pki.authority("Between", signed_by=ca)
    pair = pki.server(between)
    tls.settled(certificate=pair.pem + between.pem, key=pair.key, ca=ca.pem)
    assert "Verify return code: 0 (ok)" in tls.s_client()


def test_an_encrypted_key(tls, ca, pair):
    tls.server.start()
    tls.server.conf.chmod(0o644)
    given = {
        "certificate": pair.pem,
        "key": pair.key_with("Op3n-s3same"),
        "ca": ca.pem,
        "tls_key_file_pass": "Op3n-s3same",
    }
    done = tls.settled(**given)
    assert "Op3n-s3same" not in repr(done)
    assert mode_of(tls.server.conf) == 0o640
    assert tls.served() == pair.fingerprint
    tls.server.restart()
    assert tls.served() == pair.fingerprint
    tls.server.conf.chmod(0o644)
    assert tls.settled(**given).actions == [f"set owner and mode of {tls.server.conf}"]
    assert mode_of(tls.server.conf) == 0o640
    tls.settled(certificate=pair.pem, key=pair.key, ca=ca.pem)
    assert tls.server.config("tls-key-file-pass") == ""
    assert "Op3n-s3same" not in tls.server.conf.read_text()
    tls.server.restart()
    assert tls.served() == pair.fingerprint


# --- renewal ----------------------------------------------------------------------------------------------------------


@pytest.fixture(name="listener")
def _listener(tls):
    """A client over TLS whose connection is held open."""
    made = []

    def start():
        login = tls.login()
        made.append(
            subprocess.Popen(
                ["redis-cli", "--tls", "--cacert", login["ca_certs"], "--cert", login["client_cert_file"], "--key", login["client_key_file"],
                 "-p", str(tls.port)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            )
        )  # fmt: skip
        made[-1].stdin.write("CLIENT ID\n")
        made[-1].stdin.flush()
        return made[-1], made[-1].stdout.readline()

    yield start
    for process in made:
        process.kill()
        process.wait()


def test_renewal_needs_no_restart_and_cuts_nobody_off(tls, given, ca, pair, listener):
    tls.server.start()
    tls.settled(**given)
    client, number = listener()
    pid, run_id = tls.server.info("process_id"), tls.server.info("run_id")
    new = pki.server(ca, days=500)
    done = tls.settled(**{**given, "certificate": new.pem, "key": new.key})
    assert (
        f"live: certificate CN=redis under test, names localhost 127.0.0.1, issuer CN=Test CA, expires {done.certificate['not_after']}"
        in done.diff["after"]
    )
    assert tls.served() == new.fingerprint != pair.fingerprint
    client.stdin.write("CLIENT ID\n")
    client.stdin.flush()
    assert client.stdout.readline() == number
    assert (tls.server.info("process_id"), tls.server.info("run_id")) == (pid, run_id)


def test_a_new_authority_by_a_bundle_of_both(tls, given, ca, pair):
    """The order of docs/guides/tls.md: both authorities everywhere, then new certificates, then the old authority goes."""
    tls.server.start()
    tls.settled(**given)
    new_ca = pki.authority("New CA")
    tls.settled(**{**given, "ca": ca.pem + new_ca.pem})
    assert tls.served() == pair.fingerprint
    new = pki.server(new_ca)
    tls.settled(certificate=new.pem, key=new.key, ca=ca.pem + new_ca.pem)
    assert tls.cli("PING") != "PONG"  # a client that trusts the old authority only
    tls.ca = new_ca
    assert tls.cli("PING") == "PONG"
    tls.settled(certificate=new.pem, key=new.key, ca=new_ca.pem)
    assert tls.cli("PING") == "PONG"
    assert tls.served() == new.fingerprint


def test_an_authority_that_is_no_longer_trusted_is_forgotten_live(tls, given, ca, other_ca, pair):
    """The server itself must have read the new CA file: a client of the old authority is not let in any more."""
    tls.server.start()
    tls.settled(**{**given, "ca": ca.pem + other_ca.pem})
    stranger = pki.server(other_ca, purposes=pki.CLIENT)
    (tls.server.home.parent / "stranger.pem").write_text(stranger.pem + stranger.key)
    ask = [
        "openssl",
        "s_client",
        "-quiet",
        "-connect",
        f"127.0.0.1:{tls.port}",
        "-cert",
        str(tls.server.home.parent / "stranger.pem"),
    ]

    def answer():
        done = subprocess.run(ask, input="PING\r\nQUIT\r\n", capture_output=True, text=True, timeout=20, check=False)
        return done.stdout

    assert "+PONG" in answer()
    tls.settled(**given)
    assert "+PONG" not in answer()


def test_a_certificate_that_somebody_else_renews_is_loaded(tls, given, ca, pair):
    tls.server.start()
    tls.folder.mkdir()
    for path, text in zip(tls.files.values(), (pair.pem, pair.key, ca.pem)):
        pathlib.Path(path).write_text(text)
    before = {path: os.stat(path).st_mtime_ns for path in tls.files.values()}
    tls.settled(source="host")
    assert tls.served() == pair.fingerprint
    assert {path: os.stat(path).st_mtime_ns for path in tls.files.values()} == before
    new = pki.server(ca)
    (tls.folder / "redis.crt").write_text(new.pem)
    (tls.folder / "redis.key").write_text(new.key)
    assert tls.run(check=True, source="host").certificate["served"] is False
    done = tls.settled(source="host")
    assert done.actions == ["load the certificate"]
    assert tls.served() == new.fingerprint


class CutOff(BaseException):
    """The run ends here as if it had been killed: no exception handler of the code runs on."""


STEPS = ["put_next_to", "first set", "put_in_place", "second set", "conf"]


def cut(patch, step):
    """End the run right after one of its steps, and let nothing be put back."""
    from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile
    from ansible_collections.redisops.recovery.plugins.module_utils.tls import apply as tls_apply
    from ansible_collections.redisops.recovery.plugins.module_utils.tls import certificates

    def after(owner, name, number=1):
        real, calls = getattr(owner, name), []

        def wrapped(self, *args):
            result = real(self, *args)
            calls.append(1)
            if len(calls) == number:
                raise CutOff
            return result

        patch.setattr(owner, name, wrapped)

    for owner, name in (
        (tls_apply._Live, "put_back"),
        (certificates.Files, "put_back"),
        (certificates.Files, "discard"),
    ):
        patch.setattr(owner, name, lambda self, *args, **more: None)
    patch.setattr(StagedFile, "discard", lambda self: None)
    where = {
        "put_next_to": (certificates.Files, "put_next_to"),
        "first set": (tls_apply._Live, "set"),
        "put_in_place": (certificates.Files, "put_in_place"),
        "second set": (tls_apply._Live, "set", 2),
        "conf": (certificates.Files, "set_access"),
    }
    after(*where[step])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("begin", ["plain", "renewal", "authority"])
def test_a_run_that_was_cut_off_is_finished_by_the_next(tls, given, ca, other_ca, pair, monkeypatch, step, begin):
    tls.server.start().fill(5)
    wanted = dict(given)
    if begin != "plain":
        tls.settled(**given)
    if begin == "renewal":
        new = pki.server(ca)
        wanted.update(certificate=new.pem, key=new.key)
    if begin == "authority":
        wanted["ca"] = given["ca"] + other_ca.pem
    with monkeypatch.context() as patch:
        cut(patch, step)
        with pytest.raises(CutOff):
            tls.run(**wanted)
    done = tls.settled(**wanted)
    assert done.changed
    assert done.certificate["served"] is True
    assert [tls.server.config(name) for name in ("tls-cert-file", "tls-key-file", "tls-ca-cert-file")] == list(
        tls.files.values()
    )
    assert (tls.folder / "ca.crt").read_text() == wanted["ca"]
    assert (tls.folder / "redis.crt").read_text() == wanted["certificate"]
    assert sorted(path.name for path in tls.folder.iterdir()) == ["ca.crt", "redis.crt", "redis.key"]
    tls.server.restart()
    assert tls.run(**wanted).changed is False
    assert tls.server.keys() == 5


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_of_the_server_after_a_cut_off_run_is_no_end(tls, given, ca, monkeypatch, step):
    """Wherever the run stops, the server starts with what is on disk."""
    tls.server.start().fill(5)
    tls.settled(**given)
    new = pki.server(ca)
    with monkeypatch.context() as patch:
        cut(patch, step)
        with pytest.raises(CutOff):
            tls.run(certificate=new.pem, key=new.key, ca=ca.pem)
    tls.server.restart()
    assert tls.cli("PING") == "PONG"
    tls.settled(certificate=new.pem, key=new.key, ca=ca.pem)
    assert tls.served() == new.fingerprint


@pytest.mark.parametrize("step", STEPS)
def test_the_next_run_gets_in_over_tls_with_the_very_files_that_were_changing(tls, given, other_ca, monkeypatch, step):
    """No plain port, another authority from one run to the next, and the login's files are those that the module keeps."""
    tls.server.start().fill(5)
    assert not tls.run(**given, tls_only=True).failed
    files = tls.files
    login = {
        "login_port": tls.port, "tls": True, "ca_certs": files["tls_ca_cert_file"],
        "client_cert_file": files["tls_cert_file"], "client_key_file": files["tls_key_file"],
    }  # fmt: skip
    new = pki.server(other_ca)
    wanted = {"certificate": new.pem, "key": new.key, "ca": other_ca.pem, "tls_only": True}
    with monkeypatch.context() as patch:
        cut(patch, step)
        with pytest.raises(CutOff):
            tls.run(**wanted, **login)
    done = tls.run(**wanted, **login)
    assert not done.failed, done.msg
    assert done.changed
    assert tls.run(**wanted, **login).changed is False
    assert (tls.folder / "ca.crt").read_text() == other_ca.pem
    tls.ca = other_ca
    assert tls.cli("DBSIZE") == "5"


# --- what fails on the way goes back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["plain", "renewal"])
@pytest.mark.parametrize("place", ["first proof", "second proof", "conf"])
def test_where_a_step_fails_everything_goes_back(tls, given, ca, pair, monkeypatch, begin, place):
    from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
    from ansible_collections.redisops.recovery.plugins.module_utils.tls import apply as tls_apply

    tls.server.start()
    wanted = dict(given)
    if begin == "renewal":
        tls.settled(**given)
        new = pki.server(ca)
        wanted.update(certificate=new.pem, key=new.key, tls_auth_clients="no")
    before = tls.picture()
    real, calls = tls_apply._Live.verify, []

    def fails(self):
        calls.append(1)
        if len(calls) == (1 if place == "first proof" else 2):
            raise Problem("tls_not_verified", "pretended")
        return real(self)

    def changed_meanwhile(self):
        raise Problem("file_changed", "pretended")

    with monkeypatch.context() as patch:
        if place == "conf":
            from ansible_collections.redisops.recovery.plugins.module_utils.tls.certificates import Files

            patch.setattr(Files, "set_access", changed_meanwhile)
        else:
            patch.setattr(tls_apply._Live, "verify", fails)
        result = tls.run(**wanted)
    assert result.failed
    assert tls.picture() == before
    if begin == "renewal":
        assert tls.served() == pair.fingerprint
        assert tls.cli("PING") == "PONG"
    tls.settled(**wanted)


def test_a_server_that_serves_something_else_is_found_out(tls, given, pair, monkeypatch):
    """The proof is a real handshake: where the answer is another's certificate, all goes back."""
    from ansible_collections.redisops.recovery.plugins.module_utils.tls import apply as tls_apply

    tls.server.start()
    before = tls.picture()
    real = tls_apply.greet
    with monkeypatch.context() as patch:
        patch.setattr(tls_apply, "greet", lambda *args: dataclasses.replace(real(*args), certificate=b"another"))
        result = tls.run(**given)
    assert result.code == "tls_not_verified", result.msg
    assert tls.picture() == before


# --- TLS only ---------------------------------------------------------------------------------------------------------


def test_tls_only_closes_the_plain_port(tls, given):
    tls.server.start().fill(3)
    predicted = tls.run(check=True, **given, tls_only=True)
    done = tls.run(**given, tls_only=True)
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions, predicted.pending) == (done.diff, done.actions, done.pending)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", tls.server.port))
    assert tls.cli("DBSIZE") == "3"
    again = tls.run(**given, tls_only=True, **tls.login())
    assert (again.failed, again.changed) == (False, False), again
    pid = tls.server.process.pid
    tls.server.stop()
    tls.server.process = subprocess.Popen(["redis-server", str(tls.server.conf)], cwd="/", stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while tls.cli("DBSIZE") != "3" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tls.server.process.pid != pid
    assert tls.cli("DBSIZE") == "3"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", tls.server.port))
    # false leaves the port as it is: a plain one is never opened here
    again = tls.run(**given, tls_only=False, **tls.login())
    assert (again.failed, again.changed) == (False, False), again


def test_tls_takes_over_the_plain_ports_number(tls, given, pair):
    tls.server.start().fill(3)
    tls.port = tls.server.port
    predicted = tls.run(check=True, **given, tls_only=True)
    done = tls.run(**given, tls_only=True)
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions) == (done.diff, done.actions)
    assert tls.cli("DBSIZE") == "3"
    assert tls.served() == pair.fingerprint
    again = tls.run(**given, tls_only=True, **tls.login())
    assert (again.failed, again.changed) == (False, False), again


def test_taking_over_the_number_goes_back_where_it_fails(tls, given, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.tls import apply as tls_apply
    from ansible_collections.redisops.recovery.plugins.module_utils.tls import handshake as tls_handshake

    tls.server.start()
    tls.port = tls.server.port
    before = tls.picture()
    with monkeypatch.context() as patch:
        patch.setattr(tls_apply, "greet", lambda *args: tls_handshake.Seen(trouble="pretended"))
        result = tls.run(**given, tls_only=True)
    assert result.code == "tls_not_verified", result.msg
    assert tls.picture() == before


def test_clients_on_the_plain_port_stay_and_are_told_of(tls, given):
    tls.server.start()
    with socket.create_connection(("127.0.0.1", tls.server.port)) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(7) == b"+PONG\r\n"
        done = tls.run(**given, tls_only=True)
        assert not done.failed, done.msg
        assert done.plain_clients == {"replicas": 0, "sentinels": 0, "clients": 1}
        assert any(f"127.0.0.1:{client.getsockname()[1]}" in text for text in done.warned), done.warned
        client.sendall(b"PING\r\n")
        assert client.recv(7) == b"+PONG\r\n"


def test_a_sentinel_on_the_plain_port_is_not_locked_out(tls, given, tmp_path):
    tls.server.start()
    (tmp_path / "sentinel.conf").write_text(
        f"port {free_port()}\nbind 127.0.0.1\nsentinel monitor one 127.0.0.1 {tls.server.port} 1\n"
    )
    sentinel = subprocess.Popen(
        ["redis-server", str(tmp_path / "sentinel.conf"), "--sentinel"], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: "name=sentinel-" in tls.server.cli("CLIENT", "LIST"))
        assert "Sentinels 127.0.0.1:" in tls.refused("plain_links", **given, tls_only=True).msg
    finally:
        sentinel.kill()
        sentinel.wait()
    wait_for(lambda: "name=sentinel-" not in tls.server.cli("CLIENT", "LIST"))
    assert not tls.run(**given, tls_only=True).failed


# --- replication ------------------------------------------------------------------------------------------------------


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.fixture(name="primary")
def _primary(call_module, new_redis, ca):
    return Tls(new_redis("primary"), ca, call_module, free_port())


def test_replication_over_tls_and_the_way_there(tls, primary, given, ca):
    """The order of docs/guides/tls.md, with two servers that replicate in plain text."""
    primary.server.start().fill(10)
    tls.server.start().cli("REPLICAOF", "127.0.0.1", str(primary.server.port))
    wait_for(lambda: tls.server.info("master_link_status") == "up")
    # The plain port of a primary does not close under its replica.
    result = primary.refused("plain_links", **given, tls_only=True)
    assert "replicas 127.0.0.1:" in result.msg
    # 1. TLS next to the plain port, everywhere
    primary.settled(**given)
    tls.settled(**given)
    # 2. replicas speak TLS: the link stays until it breaks, and that is reported
    predicted = tls.run(check=True, **given, tls_replication=True)
    assert any(f"127.0.0.1:{primary.server.port}" in text for text in predicted.warned), predicted.warned
    tls.settled(**given, tls_replication=True)
    assert tls.server.info("master_link_status") == "up"
    tls.server.cli("REPLICAOF", "127.0.0.1", str(primary.port))
    wait_for(lambda: tls.server.info("master_link_status") == "up")
    primary.server.cli("SET", "over", "tls")
    wait_for(lambda: tls.server.cli("GET", "over") == "tls")
    # 3. the plain ports close
    assert not primary.run(**given, tls_only=True).failed
    assert not tls.run(**given, tls_replication=True, tls_only=True).failed
    assert primary.cli("SET", "more", "1") == "OK"
    wait_for(lambda: tls.cli("GET", "more") == "1")
    assert tls.cli("CLIENT", "KILL", "TYPE", "master") == "1"
    primary.cli("SET", "again", "2")
    wait_for(lambda: tls.cli("GET", "again") == "2")


def test_no_warning_where_the_primary_answers_over_tls(tls, primary, given):
    primary.server.start()
    primary.settled(**given)
    tls.server.start()
    tls.server.cli("REPLICAOF", "127.0.0.1", str(primary.port))
    done = tls.run(**given, tls_replication=True)
    assert (done.failed, done.warned) == (False, [])
    wait_for(lambda: tls.server.info("master_link_status") == "up")


# --- cluster ----------------------------------------------------------------------------------------------------------


def test_the_bus_of_a_node_alone_waits_for_its_restart(tls, given):
    tls.server.port, tls.port = free_port(), free_port()
    tls.server.write_conf("cluster-enabled yes\n")
    tls.server.start()
    done = tls.settled(**given, tls_cluster=True)
    assert done.restart_required == ["tls-cluster", "tls-port"]
    assert tls.server.config("tls-cluster") == "no"
    tls.server.restart()
    assert tls.server.config("tls-cluster") == "yes"
    again = tls.run(**given, tls_cluster=True)
    assert (again.changed, again.restart_required) == (False, [])
    assert again.certificate["served"] is True


def test_the_bus_of_a_node_among_others_is_not_changed(tls, given, new_redis):
    nodes = [tls.server, new_redis("second")]
    for node in nodes:
        node.port = free_port()
        node.write_conf("cluster-enabled yes\ncluster-node-timeout 2000\n")
        node.start()
    nodes[0].cli("CLUSTER", "MEET", "127.0.0.1", str(nodes[1].port))
    wait_for(lambda: "cluster_known_nodes:2" in nodes[0].cli("CLUSTER", "INFO"))
    tls.port = free_port()
    before = tls.server.conf.read_bytes()
    result = tls.run(**given, tls_cluster=True)
    assert result.code == "cluster_bus", result.msg
    assert "knows 1 others" in result.msg
    assert tls.server.conf.read_bytes() == before
    assert not tls.folder.exists()
    assert not tls.run(**given).failed  # TLS for clients needs no new bus
    assert tls.cli("PING") == "PONG"


# --- issued certificates ----------------------------------------------------------------------------------------------


@pytest.fixture(name="issue")
def _issue(tls, ca):
    """What the action does, with both halves in this process; ansible-playbook is further below."""
    from ansible_collections.redisops.recovery.plugins.action.redis_tls import joined
    from ansible_collections.redisops.recovery.plugins.plugin_utils.authority import Authority

    calls = []

    def run(check=False, authority=ca, bundle=None, **more):
        options = {"source": "issued", "ca": bundle or authority.pem, "names": ["redis-1.example.org"], **more}
        calls.append("first")
        result = tls.run(check=check, **options)
        if result.failed or not getattr(result, "request", None):
            return result
        calls.append("second")
        names = [*options["names"], "localhost"]
        signed = Authority(options["ca"], authority.key, None).sign(
            result.request, names, True, options.get("valid_days", 397)
        )
        second = tls.run(check=check, certificate=signed, **options)
        return types.SimpleNamespace(**joined(vars(result), vars(second)))

    def settled(**more):
        predicted = run(check=True, **more)
        assert not predicted.failed, predicted.msg
        done = run(**more)
        assert not done.failed, done.msg
        assert (predicted.diff, predicted.actions, predicted.issued_because) == (
            done.diff,
            done.actions,
            done.issued_because,
        )
        calls.clear()
        again = run(**more)
        assert (again.failed, again.changed, again.diff, again.issued_because) == (
            False,
            False,
            {"before": "", "after": ""},
            [],
        ), again
        assert calls == ["first"]
        return done

    run.settled = settled
    return run


def names_served(tls):
    found = re.search(r"-----BEGIN.*?-----END CERTIFICATE-----", tls.s_client(), re.S).group(0)
    reported = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName"], input=found, capture_output=True, text=True, check=True
    ).stdout
    return [entry.strip() for entry in reported.splitlines()[1].split(",")]


def test_a_certificate_is_issued_and_its_key_stays(tls, issue):
    tls.server.start()
    done = issue.settled()
    assert done.certificate["served"] is True
    assert done.issued_because == ["there is no key"]
    assert {"DNS:redis-1.example.org", "DNS:localhost", "IP Address:127.0.0.1"} <= set(names_served(tls))
    assert "Verify return code: 0 (ok)" in tls.s_client("-verify_hostname", "redis-1.example.org")
    assert tls.cli("PING") == "PONG"
    assert mode_of(tls.folder / "redis.key") == 0o640
    key = (tls.folder / "redis.key").read_text()
    assert key.splitlines()[1] not in json.dumps(vars(done))
    assert sorted(path.name for path in tls.folder.iterdir()) == ["ca.crt", "redis.crt", "redis.key"]


def test_check_mode_makes_no_key(tls, issue):
    tls.server.start()
    before = tls.picture()
    predicted = issue(check=True)
    assert predicted.changed
    assert predicted.certificate == {}
    assert "new key" in predicted.diff["after"]
    assert tls.picture() == before


@pytest.mark.parametrize(
    ("what", "options", "because"),
    [
        ("nearly over", {"renew_before": 40, "valid_days": 90}, "it expires at"),
        ("another name", {"names": ["redis-2.example.org"]}, "it lacks redis-2.example.org"),
        ("one name less", {"names": ["redis-1.example.org"], "start_names": ["redis-1.example.org", "alias.example.org"]}, "it has alias.example.org"),
    ],
)  # fmt: skip
def test_a_certificate_is_issued_anew(tls, issue, what, options, because):
    tls.server.start()
    options = dict(options)
    start = {"names": options.pop("start_names", ["redis-1.example.org"])}
    if "renew_before" in options:
        start.update(valid_days=35)
        options.update(names=start["names"])
    issue.settled(**start)
    first, key = tls.served(), (tls.folder / "redis.key").read_bytes()
    run_id = tls.server.info("run_id")
    done = issue.settled(**options)
    assert because in done.issued_because[0], what
    assert tls.served() != first
    assert tls.server.info("run_id") == run_id
    assert (tls.folder / "redis.key").read_bytes() == key  # only the certificate changes: one rename


def test_another_authority_issues_anew(tls, issue, ca, other_ca):
    tls.server.start()
    issue.settled()
    done = issue.settled(authority=other_ca, bundle=other_ca.pem + ca.pem)
    assert "does not lead to an authority" in done.issued_because[0]
    tls.ca = other_ca
    assert "Verify return code: 0 (ok)" in tls.s_client()


def test_an_authority_of_the_same_name_with_another_key_issues_anew(tls, issue, ca):
    tls.server.start()
    issue.settled()
    twin = pki.authority()
    assert issue.settled(authority=twin, bundle=twin.pem + ca.pem).issued_because
    tls.ca = twin
    assert tls.cli("PING") == "PONG"


def test_a_key_that_is_gone_or_damaged_is_made_anew(tls, issue):
    tls.server.start()
    issue.settled()
    old = (tls.folder / "redis.key").read_text()
    (tls.folder / "redis.key").unlink()
    assert issue.settled().issued_because == ["there is no key"]
    assert (tls.folder / "redis.key").read_text() != old
    (tls.folder / "redis.key").write_text("no key at all\n")
    issue.settled()
    (tls.folder / "redis.key").write_text(old)
    assert "does not belong" in issue.settled().issued_because[0]
    assert (tls.folder / "redis.key").read_text() == old
    assert tls.cli("PING") == "PONG"


def test_an_authority_near_its_end_does_not_issue_for_ever(tls, issue):
    tls.ca = pki.authority("Old CA", days=20)
    tls.server.start()
    done = issue.settled(authority=tls.ca)
    assert done.certificate["days_left"] == 19
    assert any("authority CN=Old CA expires at" in text for text in done.warned), done.warned


def test_a_key_of_a_run_that_was_cut_off_is_used(tls, issue):
    tls.server.start()
    asked = tls.run(source="issued", ca=tls.ca.pem, names=["redis-1.example.org"])
    assert asked.request.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    waiting = (tls.folder / "redis.key.next").read_text()
    assert mode_of(tls.folder / "redis.key.next") == 0o640
    issue.settled()
    assert (tls.folder / "redis.key").read_text() == waiting
    assert tls.cli("PING") == "PONG"


def test_a_signed_certificate_that_will_not_do(tls, ca):
    tls.server.start()
    options = {"source": "issued", "ca": ca.pem, "names": ["redis-1.example.org"]}
    asked = tls.run(**options)
    assert asked.request
    result = tls.run(certificate=pki.server(ca).pem, **options)
    assert result.code == "issued_unfit", result.msg
    assert tls.server.config("tls-port") == "0"


# --- bad input: one clear error each, and nothing changed -------------------------------------------------------------


def bad(name, ca, other_ca, pair):
    given = {"certificate": pair.pem, "key": pair.key, "ca": ca.pem}
    server_only = pki.server(ca, purposes=pki.SERVER)
    return {
        "key of another certificate": ("key_mismatch", {**given, "key": pki.server(ca).key}),
        "expired": ("certificate_expired", {**given, **of(pki.server(ca, days=-1, since=-30))}),
        "not yet valid": ("certificate_not_yet_valid", {**given, **of(pki.server(ca, since=2))}),
        "no CA": ("ca_missing", {**given, "ca": None}),
        "no certificate": ("certificate_missing", {**given, "certificate": None}),
        "no key": ("key_missing", {**given, "key": None}),
        "another CA": ("certificate_untrusted", {**given, "ca": other_ca.pem}),
        "chain with a gap": ("certificate_untrusted", {**given, **of(pki.server(pki.authority("Between", signed_by=ca)))}),
        "expired CA": ("ca_expired", expired_authority()),
        "for clients only": ("certificate_purpose", {**given, **of(pki.server(ca, purposes=pki.CLIENT))}),
        "for servers only, and replication": ("certificate_purpose", {**given, **of(server_only), "tls_replication": True}),
        "for servers only, and cluster bus": ("certificate_purpose", {**given, **of(server_only), "tls_cluster": True}),
        "name that it lacks": ("certificate_names", {**given, "names": ["redis.example.org"]}),
        "no PEM": ("certificate_unreadable", {**given, "certificate": "MIIB"}),
        "damaged": ("certificate_unreadable", {**given, "certificate": pair.pem.replace("MII", "AAA", 1)}),
        "CA that is no certificate": ("certificate_unreadable", {**given, "ca": pair.key}),
        "key that is none": ("key_unreadable", {**given, "key": pair.pem}),
        "damaged key": ("key_unreadable", {**given, "key": pair.key.replace("MI", "AA", 1)}),
        "encrypted key": ("key_locked", {**given, "key": pair.key_with("s3same")}),
        "wrong passphrase": ("key_locked", {**given, "key": pair.key_with("s3same"), "tls_key_file_pass": "wr0ng-s3same"}),
        "key for everybody": ("invalid_value", {**given, "mode": "0644"}),
        "no mode": ("invalid_value", {**given, "mode": "rw-r-----"}),
        "no user": ("unknown_user", {**given, "owner": "nobody-here"}),
        "no group": ("unknown_group", {**given, "group": "nobody-here"}),
        "no port": ("invalid_value", {**given, "tls_port": 70000}),
        "no protocol": ("invalid_value", {**given, "tls_protocols": []}),
        "no name": ("invalid_value", {**given, "names": ["not a name"]}),
        "renewed at once": ("contradiction", {"source": "issued", "ca": ca.pem, "valid_days": 20}),
        "passphrase for a key to be made": ("contradiction", {"source": "issued", "ca": ca.pem, "tls_key_file_pass": "s3same"}),
        "expired CA that issues": ("ca_expired", {"source": "issued", "ca": pki.authority(days=-1, since=-30).pem}),
        "files that are not there": ("ca_missing", {"source": "host"}),
        "key of the authority on the host": ("controller_only", {**given, "ca_key": ca.key}),
    }[name]  # fmt: skip


def of(pair):
    return {"certificate": pair.pem, "key": pair.key}


def expired_authority():
    old = pki.authority("Old CA", days=-1, since=-30)
    return {**of(pki.server(old, since=-20)), "ca": old.pem}


BAD = [
    "key of another certificate", "expired", "not yet valid", "no CA", "no certificate", "no key", "another CA", "chain with a gap",
    "expired CA", "for clients only", "for servers only, and replication", "for servers only, and cluster bus", "name that it lacks",
    "no PEM", "damaged", "CA that is no certificate", "key that is none", "damaged key", "encrypted key", "wrong passphrase",
    "key for everybody", "no mode", "no user", "no group", "no port", "no protocol", "no name", "renewed at once",
    "passphrase for a key to be made", "expired CA that issues", "files that are not there", "key of the authority on the host",
]  # fmt: skip


@pytest.mark.parametrize("begin", ["plain", "with TLS", "stopped"])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error_and_changes_nothing(tls, given, ca, other_ca, pair, begin, name):
    if begin != "stopped":
        tls.server.start()
    if begin == "with TLS":
        tls.settled(**given)
    code, options = bad(name, ca, other_ca, pair)
    if name == "files that are not there" and begin == "with TLS":
        (tls.folder / "ca.crt").unlink()
    result = tls.refused(code, **options)
    assert "s3same" not in repr(result)
    assert "PRIVATE" not in repr(result)
    if begin == "with TLS":
        assert tls.served() == pair.fingerprint


def test_expiry_is_warned_of(tls, ca):
    tls.server.start()
    near = pki.server(ca, days=20)
    done = tls.settled(**of(near), ca=ca.pem)
    assert done.certificate["days_left"] == 19
    assert any("expires at" in text and "CN=redis under test" in text for text in done.warned), done.warned
    assert tls.run(**of(near), ca=ca.pem, renew_before=10).warned == []


def test_a_key_on_the_host_that_everybody_reads_is_warned_of(tls, ca, pair):
    tls.server.start()
    tls.folder.mkdir()
    for path, text in zip(tls.files.values(), (pair.pem, pair.key, ca.pem)):
        pathlib.Path(path).write_text(text)
    os.chmod(tls.files["tls_key_file"], 0o640)
    assert tls.run(check=True, source="host").warned == []
    os.chmod(tls.files["tls_key_file"], 0o644)
    assert any("redis.key" in text for text in tls.run(check=True, source="host").warned)


def test_another_program_has_the_port(tls, given):
    tls.server.start()
    with socket.create_server(("127.0.0.1", tls.port)):
        tls.refused("port_taken", **given)
    tls.settled(**given)


def test_a_host_without_openssl(tls, given, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.tls import openssl

    tls.server.start()
    monkeypatch.setattr(openssl.shutil, "which", lambda name: None)
    tls.refused("no_openssl", **given)


def test_one_port_for_both_is_a_contradiction(tls, given):
    tls.server.start()
    tls.port = tls.server.port
    tls.refused("contradiction", **given)


def test_the_port_of_another_directive_that_the_file_has_wrong(tls, given):
    tls.server.write_conf("hz ten\n")
    tls.refused("conf_rejected", **given)


def test_a_server_without_tls(tls, given, monkeypatch):
    from ansible_collections.redisops.recovery.plugins.module_utils.server.connection import Server

    tls.server.start()
    real = Server.config_all
    monkeypatch.setattr(
        Server,
        "config_all",
        lambda self: {name: value for name, value in real(self).items() if not name.startswith("tls-")},
    )
    tls.refused("no_tls", **given)


def test_a_stopped_server_without_tls(tls, given, tmp_path, monkeypatch):
    """A redis-server that refuses tls- directives with the words of one that was built without TLS."""
    fake = tmp_path / "bin" / "redis-server"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\nif line=$(grep -n "^tls-" "$1"); then\necho "*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***"\n'
        'echo "Reading the configuration file, at line ${line%%:*}"\nfirst=$(echo "$line" | head -1)\necho ">>> \'${first#*:}\'"\n'
        'echo "Bad directive or wrong number of arguments"\nexit 1\nfi\nexec '
        + str(shutil.which("redis-server"))
        + ' "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    tls.refused("no_tls", **given)


@pytest.fixture(name="of_nobody")
def _of_nobody(tls):
    """A server that runs as nobody, below a directory that nobody may enter."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="redisops-test-"))
    home.chmod(0o755)
    server = type(tls.server)(home)
    for path in (home, server.data):
        shutil.chown(path, 65534, 65534)
    real = subprocess.Popen

    class AsNobody(real):
        def __init__(self, command, **more):
            more.update({"user": 65534, "group": 65534, "extra_groups": []} if command[0] == "redis-server" else {})
            super().__init__(command, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", AsNobody)
        server.start()
    yield dataclasses.replace(tls, server=server)
    server.stop(signal.SIGKILL)
    shutil.rmtree(home)


@pytest.mark.needs_root
def test_a_key_that_the_servers_user_cannot_read(of_nobody, given):
    tls = of_nobody
    result = tls.refused("server_cannot_read", **given)
    assert "redis.key" in result.msg
    done = tls.settled(**given, group="65534")
    assert done.certificate["served"] is True
    (tls.folder / "redis.key").chmod(0o600)
    tls.refused("server_cannot_read", source="host")
    tls.folder.chmod(0o700)
    tls.refused("server_cannot_read", **given, group="65534")


# --- secrets ----------------------------------------------------------------------------------------------------------


def as_ansible_runs_it(tls, **options):
    """In a process of its own: the parameters come back as "invocation"."""
    arguments = {**tls.params(**options), "_ansible_check_mode": False, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.redisops.recovery.plugins.modules.redis_tls"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)}, cwd="/",
    )  # fmt: skip
    return json.loads(done.stdout), done.stdout + done.stderr


def test_secrets_are_in_no_result_and_no_log(tls, given, pair, monkeypatch):
    from ansible.module_utils.basic import AnsibleModule

    tls.server.start()
    locked = {**given, "key": pair.key_with("Op3n-s3same"), "tls_key_file_pass": "Op3n-s3same"}
    result, output = as_ansible_runs_it(tls, **locked)
    assert result["changed"], result
    secrets = ["Op3n-s3same", *pair.key.splitlines()[1:-1], *locked["key"].splitlines()[1:-1]]
    assert result["invocation"]["module_args"]["tls_port"] == tls.port
    assert [secret for secret in secrets if secret in output] == []
    failed, output = as_ansible_runs_it(tls, **{**locked, "tls_key_file_pass": "wr0ng-s3same"})
    assert failed["code"] == "key_locked"
    assert "s3same" not in output
    logged = []
    monkeypatch.setattr(AnsibleModule, "log", lambda self, msg, log_args=None: logged.append(f"{msg} {log_args}"))
    tls.run(check=True, **locked)
    assert f"tls_port={tls.port}" in "".join(logged)
    assert [secret for secret in secrets if secret in "".join(logged)] == []


def test_secrets_are_in_no_argument_list(tls, given, pair, monkeypatch):
    tls.server.start()
    seen, real = [], subprocess.Popen

    class Watched(real):
        def __init__(self, command, **more):
            seen.append((" ".join(map(str, command)), repr(more.get("env"))))
            super().__init__(command, **more)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Watched)
        result = tls.run(**{**given, "key": pair.key_with("Op3n-s3same"), "tls_key_file_pass": "Op3n-s3same"})
    assert not result.failed, result.msg
    assert any("pkey" in command for command, _ in seen)
    assert "s3same" not in repr(seen)
    assert pair.key.splitlines()[1] not in repr(seen)


def test_the_key_is_never_in_a_file_for_everybody(tls, given, pair, monkeypatch):
    tls.server.start()
    seen, real = [], os.replace
    key_line = pair.key.splitlines()[1]

    def watched(source, target):
        real(source, target)
        if key_line in pathlib.Path(target).read_text():
            seen.append((os.path.basename(target), mode_of(target)))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", watched)
        assert tls.run(**given).changed
    assert seen == [("redis.key.next", 0o640), ("redis.key", 0o640)]


# --- a host without Redis ---------------------------------------------------------------------------------------------


def test_check_mode_on_a_bare_host_tells_what_the_run_does(tls, given):
    """Check mode comes before Redis is installed; the run finds the file that the package brought."""
    conf = tls.server.conf.read_text()
    tls.server.conf.unlink()
    predicted = tls.run(check=True, **given, fresh_install=True, group="not-there-yet")
    assert not predicted.failed, predicted.msg
    tls.server.conf.write_text(conf)
    done = tls.run(**given, fresh_install=True)
    assert not done.failed, done.msg
    assert (predicted.diff, predicted.actions, predicted.pending) == (done.diff, done.actions, done.pending)
    assert tls.run(**given).changed is False


# --- as ansible-playbook runs it --------------------------------------------------------------------------------------


@pytest.fixture(name="play")
def _play(tls, ca, pair, tmp_path):
    (tmp_path / "ca.crt").write_text(ca.pem)
    (tmp_path / "redis.crt").write_text(pair.pem)
    (tmp_path / "redis.key").write_text(pair.key)
    vault = tmp_path / "vault-password"
    vault.write_text("vault password\n")
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible"),
                   "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_VAULT_PASSWORD_FILE": str(vault),
                   "ANSIBLE_STDOUT_CALLBACK": "default"}  # fmt: skip
    tools = pathlib.Path(sys.executable).parent

    def encrypt(name, text):
        path = tmp_path / name
        path.write_text(text)
        subprocess.run(
            [tools / "ansible-vault", "encrypt", str(path)], env=environment, check=True, capture_output=True
        )
        assert path.read_text().startswith("$ANSIBLE_VAULT")
        return str(path)

    def run(*arguments, role=None, **options):
        if role:
            tasks = [
                {
                    "name": "Play the role",
                    "ansible.builtin.import_role": {"name": "redisops.recovery.redis_tls"},
                    "vars": role,
                }
            ]
        else:
            tasks = [
                {
                    "name": "Declare TLS",
                    "redisops.recovery.redis_tls": {**tls.params(), **options},
                    "register": "__redis_tls_result",
                }
            ]
        keep = {"content": "{{ __redis_tls_result | to_json }}", "dest": str(tmp_path / "result"), "mode": "0600"}
        tasks.append({"name": "Keep the result", "ansible.builtin.copy": keep, "check_mode": False, "diff": False})
        (tmp_path / "result").unlink(missing_ok=True)
        book = tmp_path / "play.yml"
        book.write_text(json.dumps([{"name": "Play", "hosts": "all", "gather_facts": False, "tasks": tasks}]))
        inventory = tmp_path / "inventory.yml"
        inventory.write_text(
            json.dumps(
                {
                    "all": {
                        "hosts": {
                            "redis-1.example.org": {
                                "ansible_host": "127.0.0.1",
                                "ansible_connection": "local",
                                "ansible_python_interpreter": sys.executable,
                            }
                        }
                    }
                }
            )
        )
        done = subprocess.run(
            [tools / "ansible-playbook", "-i", str(inventory), str(book), "-v", "--diff", *arguments],
            env=environment, capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        result = json.loads((tmp_path / "result").read_text()) if (tmp_path / "result").exists() else {}
        return result, done.stdout + done.stderr

    run.encrypt = encrypt
    return run


@pytest.mark.needs_root
def test_files_of_the_controller_end_to_end(tls, play, pair):
    tls.server.start()
    options = {"certificate_src": "redis.crt", "key_src": play.encrypt("locked.key", pair.key), "ca_src": "ca.crt"}
    predicted, _ = play("--check", **options)
    done, output = play(**options)
    assert done["changed"], output
    assert predicted["diff"] == done["diff"]
    assert tls.served() == pair.fingerprint
    assert (tls.folder / "redis.key").read_text() == pair.key
    assert pair.key.splitlines()[1] not in output + json.dumps(done)
    again, output = play(**options)
    assert again["changed"] is False, output


@pytest.mark.needs_root
def test_a_certificate_is_issued_end_to_end(tls, play, ca):
    tls.server.start()
    options = {
        "source": "issued",
        "ca_src": "ca.crt",
        "ca_key_src": play.encrypt("ca.key", ca.key_with("au7hority")),
        "ca_key_passphrase": "au7hority",
    }
    predicted, output = play("--check", "-vvv", **options)
    assert predicted["changed"], output
    done, output = play("-vvv", **options)
    assert done["changed"], output
    assert predicted["diff"] == done["diff"]
    assert "request" not in done
    assert {"DNS:redis-1.example.org", "IP Address:127.0.0.1", "DNS:localhost"} <= set(names_served(tls))
    assert "Verify return code: 0 (ok)" in tls.s_client("-verify_hostname", "redis-1.example.org")
    for secret in ("au7hority", *ca.key.splitlines()[1:-1], *(tls.folder / "redis.key").read_text().splitlines()[1:-1]):
        assert secret not in output
        assert secret not in json.dumps(done)
    again, output = play(**options)
    assert again["changed"] is False, output


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("ca_missing", {"certificate_src": "redis.crt", "key_src": "redis.key", "ca_src": "absent.crt"}),
        ("certificate_missing", {"certificate_src": "absent.crt", "key_src": "redis.key", "ca_src": "ca.crt"}),
        ("key_missing", {"certificate_src": "redis.crt", "key_src": "absent.key", "ca_src": "ca.crt"}),
        ("ca_key_missing", {"source": "issued", "ca_src": "ca.crt"}),
        ("ca_key_missing", {"source": "issued", "ca_src": "ca.crt", "ca_key_src": "absent.key"}),
        ("ca_missing", {"source": "issued", "ca_key_src": "redis.key"}),
        ("ca_key_mismatch", {"source": "issued", "ca_src": "ca.crt", "ca_key_src": "redis.key"}),
        ("ca_key_unreadable", {"source": "issued", "ca_src": "ca.crt", "ca_key_src": "redis.crt"}),
        ("ca_is_none", {"source": "issued", "ca_src": "redis.crt", "ca_key_src": "redis.key"}),
        (
            "contradiction",
            {"certificate_src": "redis.crt", "key_src": "redis.key", "ca_src": "ca.crt", "ca_key_src": "redis.key"},
        ),
        ("contradiction", {"certificate_src": "redis.crt", "key_src": "redis.key", "key": "x", "ca_src": "ca.crt"}),
    ],
)
def test_what_the_controller_finds_wrong(tls, play, code, options):
    tls.server.start()
    before = tls.picture()
    _, output = play(**options)
    assert f"code: {code}" in output or f'"code": "{code}"' in output, output
    assert tls.picture() == before
    assert "Traceback" not in output


@pytest.mark.needs_root
def test_the_role(tls, play, ca, tmp_path):
    """Its variables reach the module, a login over TLS does, and without redis_tls_enabled nothing is called."""
    tls.server.start()
    options = {
        "redis_tls_source": "issued", "redis_tls_ca_src": str(tmp_path / "ca.crt"), "redis_tls_ca_key": ca.key, "redis_tls_names": ["redis.example.org"],
        "redis_tls_cert_file": tls.files["tls_cert_file"], "redis_tls_key_file": tls.files["tls_key_file"],
        "redis_tls_ca_cert_file": tls.files["tls_ca_cert_file"], "redis_tls_group": "root", "redis_tls_port": tls.port, "redis_tls_only": True,
        "redis_server_config_file": str(tls.server.conf), "redis_server_login": {"login_port": tls.server.port}, "redis_server_timeout": 30,
    }  # fmt: skip
    before = tls.picture()
    result, output = play("-vvv", role=options)
    assert (result["changed"], result["skipped"]) == (False, True), output
    assert "redis_tls.py" not in output
    assert tls.picture() == before
    done, output = play(role={**options, "redis_tls_enabled": True})
    assert done["changed"], output
    assert done["pending"][:2] == ["port", "tls-port"]
    assert done["restart_required"] == []
    assert tls.cli("PING") == "PONG"
    assert "DNS:redis.example.org" in names_served(tls)
    login = {
        "login_port": tls.port, "tls": True, "ca_certs": tls.files["tls_ca_cert_file"], "client_cert_file": tls.files["tls_cert_file"],
        "client_key_file": tls.files["tls_key_file"],
    }  # fmt: skip
    again, output = play(role={**options, "redis_tls_enabled": True, "redis_server_login": login})
    assert again["changed"] is False, output


@pytest.mark.needs_root
def test_one_call_for_a_host_that_is_as_declared(tls, play, ca):
    """Not one more process on the host than for any module."""
    tls.server.start()
    options = {"source": "issued", "ca_src": "ca.crt", "ca_key_src": play.encrypt("ca.key", ca.key)}
    done, output = play("-vvv", **options)
    assert done["changed"], output
    issued = len(re.findall(r"Using module file .*redis_tls\.py", output))
    again, output = play("-vvv", **options)
    assert again["changed"] is False
    assert (issued, len(re.findall(r"Using module file .*redis_tls\.py", output))) == (2, 1)


def test_a_login_over_tls_by_name(tls, given):
    tls.server.start()
    assert not tls.run(**given, tls_only=True).failed
    again = tls.run(**given, tls_only=True, **tls.login(login_host="localhost"))
    assert (again.failed, again.changed) == (False, False), again
