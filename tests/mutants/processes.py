"""Running a build step or a test, bounded in time, memory and disk."""

import contextlib
import dataclasses
import os
import resource
import signal
import subprocess
import time

# A mutant may loop while it allocates or writes. Far beyond what any test takes; checked with the tests unchanged.
_MEMORY_BYTES, _FILE_BYTES = 24 << 30, 8 << 30


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int | None  # None when it took too long and was killed.
    seconds: float
    cpu_seconds: float
    output: str = ""

    def describe(self):
        return "took too long" if self.code is None else f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"


def _limit():
    for ignored in (signal.SIGINT, signal.SIGHUP):  # As they are in the background; tests send them.
        signal.signal(ignored, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(command, log, timeout, cwd=None, environment=None):
    """Runs it in a process group of its own, of which nothing is left afterwards; its output goes into the file `log`.

    Not in a session of its own: Linux shares processors among sessions first, and this one would lose its niceness.
    """
    start, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(log, "wb") as out:
        process = subprocess.Popen([str(word) for word in command], cwd=cwd, env={**os.environ, **(environment or {})},
                                   stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0, preexec_fn=_limit)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # What hangs, and servers that a failing test left.
            process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return Outcome(code, time.monotonic() - start, cpu)
