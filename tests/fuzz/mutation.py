# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small changes to a real file, as a disk, an editor or a hurried hand makes them."""

from __future__ import annotations

import random
import typing as t

Change = t.Callable[[random.Random, bytes, t.Sequence[bytes]], bytes]


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    at = rng.randrange(len(data) + 1)
    return at, min(len(data), at + rng.choice((1, 1, 1, 2, 4, 16, 100)))


def _flip(rng: random.Random, data: bytes, _words: t.Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data


def _other(rng: random.Random, data: bytes, _words: t.Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + bytes([rng.choice(b"\0\n\r \"'#$*/\\0123459abAZ~\xff")]) + data[at + 1 :]


def _drop(rng: random.Random, data: bytes, _words: t.Sequence[bytes]) -> bytes:
    begin, end = _span(rng, data)
    return data[:begin] + data[end:]


def _twice(rng: random.Random, data: bytes, _words: t.Sequence[bytes]) -> bytes:
    begin, end = _span(rng, data)
    return data[:end] + data[begin:end] + data[end:]


def _insert(rng: random.Random, data: bytes, words: t.Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(words) + data[at:]


def _replace(rng: random.Random, data: bytes, words: t.Sequence[bytes]) -> bytes:
    begin, end = _span(rng, data)
    return data[:begin] + rng.choice(words) + data[end:]


def _cut(rng: random.Random, data: bytes, _words: t.Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _lines(rng: random.Random, data: bytes, words: t.Sequence[bytes]) -> bytes:
    """One line dropped, doubled, moved, or one of the words put in its place."""
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(5)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(other, lines[at])
    elif how == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif how == 3:
        lines[at] = rng.choice(words)
    else:
        lines.insert(at, rng.choice(words).strip(b"\n"))
    return b"\n".join(lines)


CHANGES: tuple[Change, ...] = (_flip, _other, _drop, _twice, _insert, _replace, _cut, _lines, _lines, _insert)


def mutated(rng: random.Random, seed: bytes, words: t.Sequence[bytes]) -> bytes:
    """``seed`` with one to four changes."""
    for _change in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        seed = rng.choice(CHANGES)(rng, seed, words)
    return seed
