"""A memory cgroup for one process, as a container's limit is one. Version 1 of cgroups alone, which the project's machines have."""

import contextlib
import os
import pathlib
import re

_MOUNT = pathlib.Path("/sys/fs/cgroup/memory")


class MemoryCgroup:
    """Below this process's own. Use as a context manager; enter() is for the process, before it starts its program."""

    def __init__(self, limit):
        self._limit = limit

    def __enter__(self):
        own = re.search(r"^\d+:memory:(.*)$", pathlib.Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        if not own or not os.access(_MOUNT, os.W_OK):
            raise NotImplementedError("this machine lets nobody make a memory cgroup of version 1 here")
        self._folder = _MOUNT / own.group(1).lstrip("/") / f"attend-test-{os.getpid()}"
        self._folder.mkdir()
        (self._folder / "memory.limit_in_bytes").write_text(str(self._limit))
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def enter(self):
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak_bytes(self):
        return int((self._folder / "memory.max_usage_in_bytes").read_text())

    def reset_peak(self):
        (self._folder / "memory.max_usage_in_bytes").write_text("0")

    def kills(self):
        """How often the kernel has killed a process in it for want of memory."""
        return int(re.search(r"^oom_kill (\d+)$", (self._folder / "memory.oom_control").read_text(), re.MULTILINE).group(1))
