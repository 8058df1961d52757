#!/usr/bin/env python3
"""Make a flat apt repository of packages and what they depend on. Arguments: the directory, the packages."""

import hashlib
import os
import subprocess
import sys

directory, *packages = sys.argv[1:]
os.makedirs(directory)
os.chdir(directory)
os.chmod(directory, 0o755)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


run("apt-get", "update")
run(
    "apt-get",
    "install",
    "-y",
    "--download-only",
    "--no-install-recommends",
    "-o",
    f"Dir::Cache::archives={directory}",
    *packages,
)
with open("Packages", "w", encoding="utf-8") as index:
    for name in sorted(os.listdir(".")):
        if name.endswith(".deb"):
            with open(name, "rb") as handle:
                data = handle.read()
            digest = hashlib.sha256(data).hexdigest()
            index.write(
                f"{run('dpkg-deb', '-f', name).rstrip()}\nFilename: ./{name}\nSize: {len(data)}\nSHA256: {digest}\n\n"
            )
print(len(os.listdir(".")))
