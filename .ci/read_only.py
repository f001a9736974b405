#!/usr/bin/env python3
"""Runs a command in an image's root file system as a container runtime would, read-only.

    unshare --mount read_only.py ROOT WRITABLE UID COMMAND...

Only the folder WRITABLE of it can be written to; it is the working directory, too. ROOT has an
empty dev/, which gets the devices that every runtime provides.
"""

import os
import subprocess
import sys


def main():
    root, writable, uid, *command = sys.argv[1:]
    state, uid = root + writable, int(uid)
    for arguments in (
        ["--make-rprivate", "/"],
        ["--bind", root, root],
        ["--bind", state, state],
        ["--bind", "/dev", root + "/dev"],
        ["-o", "remount,bind,ro", root],
    ):
        subprocess.run(["mount", *arguments], check=True)
    os.chroot(root)
    os.chdir(writable)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.execv(command[0], command)


main()
