# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificate, key and authorities of one server: read, chosen, verified, replaced. Knows of no redis.conf.

Whoever serves TLS with these files (a data server, a Sentinel) can use it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from ansible_collections.redisops.recovery.plugins.module_utils.core.changes import Change
from ansible_collections.redisops.recovery.plugins.module_utils.core.errors import Problem
from ansible_collections.redisops.recovery.plugins.module_utils.system.files import StagedFile, fsync_dir, read_text
from ansible_collections.redisops.recovery.plugins.module_utils.system.permissions import (
    Access,
    apply_access,
    plan_path_access,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.handshake import Identity, local_handshake
from ansible_collections.redisops.recovery.plugins.module_utils.tls.openssl import (
    make_key,
    make_request,
    public_key,
    read_certificates,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.plan import (
    describe,
    issue_reasons,
    predict,
    require_dates,
    require_names,
)
from ansible_collections.redisops.recovery.plugins.module_utils.tls.x509 import Certificate, certificates_of, key_of

__all__ = [
    "Choice",
    "Declared",
    "Files",
    "Material",
    "choose",
    "material_changes",
    "present_certificate",
    "read_material",
    "request",
]

_NEXT = ".next"


@dataclasses.dataclass(frozen=True)
class Material:
    """The three texts; None where there is none."""

    certificate: t.Optional[str] = None
    key: t.Optional[str] = None
    ca: t.Optional[str] = None

    def identity(self, passphrase: t.Optional[str] = None) -> t.Optional[Identity]:
        return Identity(self.certificate, self.key, passphrase) if self.certificate and self.key else None

    def items(self) -> list[tuple[str, t.Optional[str]]]:
        return [(kind, getattr(self, kind)) for kind in ("key", "certificate", "ca")]


@dataclasses.dataclass(frozen=True)
class Declared:
    """What is declared of them. ``given`` has the texts that were passed, ``as_client``: the certificate is shown to other servers."""

    source: str
    paths: t.Mapping[str, str]
    given: Material
    passphrase: t.Optional[str]
    names: tuple[str, ...]
    renew_before: int
    valid_days: int
    as_client: bool

    @property
    def stored_here(self) -> bool:
        """Whether the files are this collection's to write."""
        return self.source != "host"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the files shall hold. ``reasons``: why a certificate has to be issued; without it, ``material.certificate`` is None."""

    material: Material
    reasons: tuple[str, ...] = ()
    leaf: t.Optional[Certificate] = None
    authorities: tuple[Certificate, ...] = ()
    new_key: bool = False


def _text_or_none(path: str) -> t.Optional[str]:
    return read_text(path, shown=False) if os.path.exists(path) else None


def read_material(paths: t.Mapping[str, str]) -> Material:
    """The texts of the three files as they are. Raises Problem."""
    return Material(**{kind: _text_or_none(path) for kind, path in paths.items()})


def _require_there(declared: Declared, material: Material) -> None:
    for kind in ("ca", "certificate", "key"):
        if getattr(material, kind):
            continue
        path = declared.paths[kind]
        if kind == "ca":
            words = "the certificate of the authority that signed the server's certificate"
        else:
            words = "certificate, key and CA, together"
        detected = f"{path} does not exist" if declared.source == "host" else f"no {kind} was given"
        do = f"put it there, or set tls_{_option(kind)}" if declared.source == "host" else f"set {kind}_src or {kind}"
        if kind == "ca":
            raise Problem("ca_missing", detected.replace("no ca", "no CA certificate"), words, do)
        if kind == "key":
            raise Problem("key_missing", detected, words, do)
        raise Problem("certificate_missing", detected, words, do)


def _option(kind: str) -> str:
    return {"ca": "ca_cert_file", "key": "key_file", "certificate": "cert_file"}[kind]


def _where(declared: Declared, kind: str) -> str:
    return declared.paths[kind] if declared.source == "host" else f"the given {kind}"


def _prove(declared: Declared, material: Material, now: float) -> Choice:
    """Everything that OpenSSL, clients and the server would find wrong, each with its own code. Raises Problem."""
    _require_there(declared, material)
    certificate, key, ca = (t.cast(str, text) for text in (material.certificate, material.key, material.ca))
    authorities = read_certificates(ca, _where(declared, "ca"))
    leaf = read_certificates(certificate, _where(declared, "certificate"))[0]
    public_key(key, declared.passphrase, _where(declared, "key"))
    require_dates(leaf, now, _where(declared, "certificate"))
    local_handshake(Identity(certificate, key, declared.passphrase), ca, declared.as_client)
    require_names(leaf, declared.names)
    return Choice(material, leaf=leaf, authorities=tuple(authorities))


def _sound(key: t.Optional[str]) -> bool:
    try:
        return key is not None and bool(public_key(key, None, "key"))
    except Problem:
        return False


def _why_issue(
    declared: Declared, material: Material, authorities: t.Sequence[Certificate], now: float
) -> tuple[t.Optional[Certificate], list[str]]:
    if not material.certificate:
        return None, ["there is none"]
    try:
        leaf = read_certificates(material.certificate, "certificate")[0]
    except Problem as problem:
        return None, [problem.detected]
    reasons = issue_reasons(
        leaf, declared.names, now, declared.renew_before, declared.valid_days, authorities[0].not_after
    )
    if not reasons:
        try:
            first = certificates_of(material.ca or "")[0]
            require_dates(leaf, now, "certificate")
            local_handshake(Identity(material.certificate, material.key or ""), first, True, anchored=True)
        except Problem as problem:
            reasons = [problem.detected]
    return leaf, reasons


def _issued(declared: Declared, found: Material, now: float) -> Choice:
    if declared.passphrase:
        raise Problem(
            "contradiction", "tls_key_file_pass is set, and a key that is made on the host has none", "one of the two",
            "take tls_key_file_pass out, or give certificate and key yourself",
        )  # fmt: skip
    if not declared.given.ca:
        _require_there(declared, Material("?", "?", None))
    authorities = read_certificates(declared.given.ca or "", _where(declared, "ca"))
    ca = "".join(certificates_of(declared.given.ca or ""))
    if authorities[0].not_after <= now:
        raise Problem(
            "ca_expired",
            f"the authority {authorities[0].subject} has expired",
            "an authority that is valid",
            "use a new authority",
        )
    new_key = not _sound(found.key)
    key = found.key
    if new_key:
        ready = _text_or_none(declared.paths["key"] + _NEXT)
        key = ready if _sound(ready) else None
    old = Material(found.certificate, None if new_key else found.key, ca)
    reasons = _why_issue(declared, old, authorities, now)[1] if old.key else ["there is no key"]
    material = Material(found.certificate, key, ca)
    if reasons:
        material = Material(declared.given.certificate, key, ca)
        leaf, still = _why_issue(declared, material, authorities, now) if key else (None, ["there is no key"])
        if still:
            if declared.given.certificate:
                raise Problem(
                    "issued_unfit", f"the certificate that was just issued will not do: {'; '.join(still)}",
                    "one that this host takes as valid", "look at the clocks of this host and of the controller",
                )  # fmt: skip
            return Choice(Material(None, key, ca), tuple(reasons), None, tuple(authorities), new_key)
        return Choice(material, tuple(reasons), leaf, tuple(authorities), new_key)
    leaf = read_certificates(t.cast(str, found.certificate), "certificate")[0]
    return Choice(material, (), leaf, tuple(authorities), False)


def choose(declared: Declared, found: Material, now: float) -> Choice:
    """What the files shall hold, verified. Raises Problem for what cannot serve."""
    if declared.source == "issued":
        choice = _issued(declared, found, now)
        if choice.leaf and choice.material.certificate:
            local_handshake(
                Identity(choice.material.certificate, choice.material.key or ""),
                choice.material.ca or "",
                declared.as_client,
            )
        return choice
    if declared.source == "host":
        return _prove(declared, found, now)
    given = declared.given
    _require_there(declared, given)
    # Only the blocks that belong there: a key that stands next to a certificate must not get into a file for everybody.
    clean = Material(
        "".join(certificates_of(given.certificate or "")) or given.certificate,
        key_of(given.key or "") or given.key,
        "".join(certificates_of(given.ca or "")) or given.ca,
    )
    return _prove(declared, clean, now)


def _make_directories(paths: t.Mapping[str, str]) -> list[str]:
    """Make the directories that are missing; those that were made. Raises Problem."""
    made = []
    for folder in dict.fromkeys(os.path.dirname(path) for path in paths.values()):
        if os.path.isdir(folder):
            continue
        try:
            os.makedirs(folder, 0o755)
            os.chmod(folder, 0o755)
            fsync_dir(os.path.dirname(folder))
        except OSError as error:
            raise Problem(
                "dir_not_made", f"the directory {folder} could not be made: {error.strerror or error}", "a place that can be written",
                "make it yourself, or name other files",
            ) from None  # fmt: skip
        made.append(folder)
    return made


def exposed_key(declared: Declared) -> list[str]:
    """The warning for a key that others keep on the host, and that everybody there can read."""
    path = declared.paths["key"]
    if declared.stored_here or not os.stat(path).st_mode & 0o004:
        return []
    return [
        f"everybody on this host can read the private key {path}: whoever keeps it there should take that right away"
    ]


def present_certificate(found: Material) -> t.Optional[Certificate]:
    """The certificate in the file; None where there is none that can be read."""
    try:
        return read_certificates(found.certificate or "", "certificate")[0]
    except Problem:
        return None


def request(declared: Declared, choice: Choice, access: Access) -> str:
    """A request for the certificate that is due; a new key waits next to its place, for the run that brings the certificate."""
    key = choice.material.key
    if key is None:
        _make_directories(declared.paths)
        key = make_key()
        StagedFile(declared.paths["key"] + _NEXT, key, access=access).commit()
    return make_request(key, declared.names)


def _shown(kind: str, text: t.Optional[str], passphrase: t.Optional[str]) -> t.Optional[str]:
    """One file in one line; never what is in a key."""
    if text is None:
        return None
    try:
        if kind == "key":
            return f"key with public half sha256 {public_key(text, passphrase, 'key')[:16]}"
        found = read_certificates(text, kind)
    except Problem:
        return f"{kind} that cannot be read"
    return describe(found[0]) if kind == "certificate" else "; ".join(describe(entry) for entry in found)


def material_changes(
    declared: Declared, choice: Choice, found: Material, access: t.Mapping[str, Access]
) -> list[Change]:
    """What differs in the three files. ``access`` is empty where owner and group cannot be known yet."""
    if not declared.stored_here:
        return []
    changes: list[Change] = []
    for folder in dict.fromkeys(os.path.dirname(path) for path in declared.paths.values()):
        if not os.path.isdir(folder):
            changes.append(Change("disk", folder, None, "directory", f"make {folder}"))
    for kind, text in choice.material.items():
        path, old = declared.paths[kind], getattr(found, kind)
        if text == old and os.path.lexists(path + _NEXT):
            # A run that was cut off left it; of a key, too, one copy is enough.
            changes.append(Change("disk", path + _NEXT, "left behind", None, f"remove {path}{_NEXT}"))
        before = _shown(kind, old, declared.passphrase)
        if kind == "key" and choice.new_key:
            changes.append(Change("disk", path, before, "new key, elliptic curve P-256", f"make {path}"))
        elif kind == "certificate" and choice.reasons:
            after = predict(declared.names, choice.authorities[0], declared.valid_days)
            changes.append(Change("disk", path, before, after, f"issue {path}"))
        elif text != old:
            changes.append(Change("disk", path, before, _shown(kind, text, declared.passphrase), f"write {path}"))
        if old is not None and access:
            wanted = access[kind]
            change = plan_path_access(path, wanted.uid, wanted.gid, wanted.mode)[1]
            changes += [change] if change else []
    return changes


class Files:
    """The three files on their way to new texts: next to their places, then in place, and back if it must be."""

    def __init__(self, declared: Declared, choice: Choice, found: Material, access: t.Mapping[str, Access]) -> None:
        """Stage what differs, and make directories that are missing. Raises Problem; then nothing is left behind."""
        self._paths, self._found = (declared.paths if declared.stored_here else {}), found
        self._access = access if declared.stored_here else {}
        self._made: list[str] = []
        self._staged: dict[str, StagedFile] = {}
        self._done: dict[str, Access] = {}
        self.changed: list[str] = []
        if not declared.stored_here:
            return
        self.changed = [kind for kind, text in choice.material.items() if text != getattr(found, kind)]
        self._texts = dict(choice.material.items())
        try:
            self._made = _make_directories(declared.paths)
            for kind, path in self._paths.items():
                staged = self._stage(kind, path)
                if kind in self.changed:
                    self._staged[kind] = staged
                else:
                    staged.discard()  # and with it what a run that was cut off may have staged there
        except Problem:
            self.discard()
            raise

    def _stage(self, kind: str, path: str, text: t.Optional[str] = None) -> StagedFile:
        access = self._access[kind]
        return StagedFile(path, text or self._texts[kind] or "", access=access)

    def put_next_to(self) -> dict[str, str]:
        """Copies next to the places, for a server to read before the places change; kind → path. Raises Problem.

        Where authorities change, the copy and, for the time being, the file itself have the old ones as well: whoever logs in with
        these files, the next run among them, is let in at every point between.
        """
        nearby = {kind: self._paths[kind] + _NEXT for kind in self.changed}
        both = self._both_authorities()
        for kind, path in nearby.items():
            self._stage(kind, path, both if kind == "ca" else None).commit()
        if both:
            self._remember("ca")
            self._stage("ca", self._paths["ca"], both).commit()
            self._staged["ca"] = self._stage("ca", self._paths["ca"])
        return nearby

    def _both_authorities(self) -> t.Optional[str]:
        if "ca" not in self.changed or not self._found.ca:
            return None
        try:
            read_certificates(self._found.ca, "ca")
        except Problem:
            return None
        new = certificates_of(self._texts["ca"] or "")
        return "".join([*new, *(block for block in certificates_of(self._found.ca) if block not in new)])

    def _remember(self, kind: str) -> None:
        """What put_back() will have to put back."""
        if kind in self._done:
            return
        if getattr(self._found, kind) is None:
            self._done[kind] = self._access[kind]
        else:
            status = os.stat(self._paths[kind])
            self._done[kind] = Access(status.st_uid, status.st_gid, status.st_mode & 0o7777)

    def put_in_place(self) -> None:
        """Key and certificate follow each other at once, then the authorities. Raises Problem."""
        for kind in self.changed:
            self._remember(kind)
        for kind in self.changed:
            self._staged[kind].commit()

    def put_back(self) -> None:
        """The texts, owners and modes as they were before put_in_place()."""
        for kind, access in self._done.items():
            old, path = getattr(self._found, kind), self._paths[kind]
            with contextlib.suppress(Problem, FileNotFoundError):
                if old is None:
                    os.unlink(path)
                else:
                    StagedFile(path, old, access=access).commit()
        self._done = {}

    def set_access(self) -> None:
        """Owner and mode of files whose text stays."""
        for kind, access in self._access.items():
            if kind not in self.changed:
                apply_access([os.path.realpath(self._paths[kind])], access)

    def discard(self, keep_directories: bool = False) -> None:
        """Take away what is next to the places; ``keep_directories`` where the new files are in them."""
        for staged in self._staged.values():
            staged.discard()
        for path in self._paths.values():
            with contextlib.suppress(OSError):
                os.unlink(path + _NEXT)
        for folder in [] if keep_directories else self._made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
