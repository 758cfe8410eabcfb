"""attend-server where the system gives too little for a start: it serves, or it says what is missing, and no signal ends it."""

import os
import pathlib
import resource
import signal
import subprocess
import tempfile
import time
import unittest

from attend_testing.server import BINARY, PATIENCE, is_sanitized

DOORS = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--drain-wait", "0s")


def limit(kind, value):
    """Of the process that calls it, also of root's: nobody raises it again."""
    resource.setrlimit(kind, (value, value))


class StartLimitsTest(unittest.TestCase):
    def start(self, *flags, prepare, inherits=False):
        """(exit code, standard error) of a start; a server that serves is ended with SIGTERM."""
        with tempfile.TemporaryDirectory(prefix="attend-limits-") as folder:
            ports = pathlib.Path(folder, "ports")
            command = [str(BINARY), *DOORS, "--port-file", str(ports), *flags]
            with subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=prepare, close_fds=not inherits) as process:
                end = time.monotonic() + PATIENCE
                while process.poll() is None and not ports.exists() and time.monotonic() < end:
                    time.sleep(0.002)
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM if ports.exists() else signal.SIGKILL)
                return process.wait(PATIENCE), process.stderr.read().decode()

    def assert_sentence(self, ended, needle):
        code, error = ended
        self.assertEqual(code, 1, error)
        self.assertRegex(error, needle)

    def test_few_descriptors(self):
        served = 0
        for count in range(5, 61, 5):
            with self.subTest(count):
                code, error = self.start(prepare=lambda count=count: limit(resource.RLIMIT_NOFILE, count))
                self.assertIn(code, (0, 1, 2), error)
                self.assertNotEqual(error, "")
                served += code == 0
        self.assertGreater(served, 0, "sixty are enough")

    def test_few_descriptors_because_others_have_them(self):
        def prepare():
            limit(resource.RLIMIT_NOFILE, 64)
            for number in range(10, 60):
                os.dup2(2, number)

        self.assert_sentence(self.start(prepare=prepare, inherits=True), "descriptors.*Too many open files.*ulimit -n")

    @unittest.skipIf(is_sanitized(), "a sanitizer needs all addresses")
    def test_few_threads(self):
        stack, most = 1 << 30, resource.getrlimit(resource.RLIMIT_STACK)[1]
        if most != resource.RLIM_INFINITY and most < stack:
            self.skipTest("threads may have no large stacks here")

        def prepare():
            # A stack for each thread, of which three fit: root has no limit of threads.
            resource.setrlimit(resource.RLIMIT_STACK, (stack, most))
            limit(resource.RLIMIT_AS, 4 << 30)
            limit(resource.RLIMIT_CORE, 0)

        self.assert_sentence(self.start("--threads", "64", prepare=prepare), "attend-server: cannot start a thread: .*--polling-threads")


if __name__ == "__main__":
    unittest.main()
