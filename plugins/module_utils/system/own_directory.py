# Copyright: redisops.recovery contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory of this user's own for as long as a block lasts, within one that belongs to somebody else."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import typing as t

__all__ = ["own_directory"]


@contextlib.contextmanager
def own_directory(parent: str, prefix: str) -> t.Iterator[str]:
    """An empty directory in ``parent``, by its descriptor: whoever renames it or puts a link in its place changes nothing for us.

    Gone at the end. Raises OSError.
    """
    above = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    name = prefix + secrets.token_hex(8)
    try:
        os.mkdir(name, 0o700, dir_fd=above)
        own = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            if os.fstat(own).st_uid != os.geteuid():
                raise PermissionError(1, "it is not this user's own", os.path.join(parent, name))
            path = f"/proc/{os.getpid()}/fd/{own}"
            try:
                yield path
            finally:
                for inside in os.listdir(path):
                    shutil.rmtree(os.path.join(path, inside), ignore_errors=True)
        finally:
            os.close(own)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=above)
    finally:
        os.close(above)
