"""What becomes of the files that `attend` and the server write: links, modes, pipes, devices, and failures."""

import os
import pathlib
import resource
import shutil
import stat
import subprocess
import threading
import unittest

import numpy as np

import cli_harness
from attend_testing.server import BINARY, PATIENCE
from cli_harness import ATTEND, environment


class FilesTest(cli_harness.CliTestCase):
    def setUp(self):
        super().setUp()
        self.x = self.save("x.npy", self.random(5, 8))
        self.expected = self.attend_ok("compute", "--input", self.x, "-o", "npy").out
        self.folder = self.directory / "folder"
        self.folder.mkdir()

    def write(self, path, *flags, **keywords):
        return self.attend("compute", "--input", self.x, "--output", path, *flags, **keywords)

    def check_holds_the_result(self, path):
        self.assertEqual(pathlib.Path(path).read_bytes(), self.expected)

    def check_nothing_else(self, *names):
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(names))

    def test_a_link_stays_and_its_target_is_written(self):
        target, link = self.folder / "target.npy", self.directory / "link.npy"
        target.write_text("old")
        link.symlink_to("folder/target.npy")
        second = self.directory / "second.npy"
        second.symlink_to(link)
        for path in (link, second):
            target.write_text("old")
            self.assertEqual(self.write(path).code, 0)
            self.assertTrue(path.is_symlink())
            self.check_holds_the_result(target)
        self.check_nothing_else("target.npy")

    def test_a_link_to_nothing_yet_stays_and_its_target_is_made(self):
        link = self.directory / "link.npy"
        link.symlink_to("folder/new.npy")
        self.assertEqual(self.write(link).code, 0)
        self.assertTrue(link.is_symlink())
        self.check_holds_the_result(self.folder / "new.npy")
        self.check_nothing_else("new.npy")

    def test_a_link_that_leads_nowhere_is_an_error_that_names_it(self):
        loop, lost = self.folder / "loop.npy", self.folder / "lost.npy"
        loop.symlink_to("loop.npy")
        lost.symlink_to("no/such/folder.npy")
        for path, doing, reason in ((loop, "write", "Too many levels of symbolic links"), (lost, "create", "No such file or directory")):
            run = self.write(path)
            self.assertEqual((run.code, run.err), (5, f"attend: cannot {doing} {path}: {reason}\n"))
        self.check_nothing_else("loop.npy", "lost.npy")

    def test_modes_stay_and_a_new_file_has_that_of_the_umask(self):
        os.umask(0o027)
        self.addCleanup(os.umask, 0o022)
        new = self.folder / "new.npy"
        self.assertEqual(self.write(new).code, 0)
        self.assertEqual(stat.S_IMODE(new.stat().st_mode), 0o640)
        for mode in (0o600, 0o666, 0o755, 0o2660):
            new.chmod(mode)
            self.assertEqual(self.write(new).code, 0)
            self.assertEqual(stat.S_IMODE(new.stat().st_mode), mode)
            self.check_holds_the_result(new)
        self.check_nothing_else("new.npy")

    def test_readers_of_the_old_file_keep_it(self):
        """Not a part of the old and a part of the new."""
        path = self.folder / "out.npy"
        path.write_text("old contents")
        with path.open() as reader:
            self.assertEqual(self.write(path).code, 0)
            self.assertEqual(reader.read(), "old contents")

    def test_all_names_of_a_file_show_the_new_contents(self):
        one, other = self.folder / "one.npy", self.folder / "other.npy"
        one.write_bytes(b"old" * 1000)
        os.link(one, other)
        self.assertEqual(self.write(one).code, 0)
        self.check_holds_the_result(other)
        self.assertTrue(one.samefile(other))

    def test_a_picture_keeps_its_link_too(self):
        target, link = self.folder / "real.png", self.directory / "link.png"
        target.touch(0o600)
        link.symlink_to(target)
        self.attend_ok("compute", "--input", self.x, "--plot", link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(target.read_bytes()[:4], b"\x89PNG")
        self.assertEqual(stat.S_IMODE(target.stat().st_mode), 0o600)

    def test_a_batch_keeps_links(self):
        (self.directory / "real.npy").write_text("old")
        (self.folder / "x.npy").symlink_to(self.directory / "real.npy")
        self.attend_ok("compute", "--input", self.x, "--output-dir", self.folder)
        self.assertTrue((self.folder / "x.npy").is_symlink())
        self.check_holds_the_result(self.directory / "real.npy")

    def test_a_folder_is_refused_before_anything_is_computed(self):
        for flag, name in (("--output", "a.npy"), ("--plot", "a.png")):
            (self.folder / name).mkdir()
            run = self.attend("compute", "--input", self.x, flag, self.folder / name)
            self.assert_fails(run, 2, rf"{flag} {self.folder / name} is a directory")

    def test_devices_and_pipes_are_written_as_they_are(self):
        self.assertEqual(self.write("/dev/null").code, 0)
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        got = []
        reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
        reader.start()
        self.assertEqual(self.write(pipe).code, 0)
        reader.join(PATIENCE)
        self.assertEqual(got, [self.expected])
        self.check_nothing_else("pipe")

    def test_standard_output_goes_on_where_it_stands(self):
        run = self.write("/dev/stdout")
        self.assertEqual((run.code, run.out), (0, self.expected))
        path, link = self.folder / "log", self.directory / "out.npy"
        link.symlink_to("/dev/stdout")
        for output in ("/dev/stdout", link):
            with path.open("wb") as log:
                log.write(b"before")
                log.flush()
                command = [ATTEND, "compute", "--input", str(self.x), "--output", str(output)]
                subprocess.run(command, stdout=log, env=environment(self.env), timeout=PATIENCE, check=True)
                log.write(b"after")
            self.assertEqual(path.read_bytes(), b"before" + self.expected + b"after")
        self.assertTrue(link.is_symlink())

    def test_a_disk_without_room_leaves_the_old_file_and_no_other(self):
        limit = 1 << 20  # Far above the counters of a build that measures what tests execute.

        def small_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        x = self.save("large.npy", self.random(640, 512))
        for name, old in (("old.npy", b"old"), ("new.npy", None)):
            path = self.folder / name
            if old is not None:
                path.write_bytes(old)
            command = [ATTEND, "compute", "--input", str(x), "--output", str(path)]
            run = subprocess.run(command, env=environment(self.env), preexec_fn=small_files, capture_output=True, timeout=PATIENCE,
                                 check=False)
            self.assertEqual((run.returncode, run.stderr.decode()), (5, f"attend: cannot write {path}: File too large\n"))
        self.check_nothing_else("old.npy")
        self.assertEqual((self.folder / "old.npy").read_bytes(), b"old")

    def run_as_nobody(self, path):
        """Root may write everything. The program is copied, for nobody may look into root's folders."""
        user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        program = self.directory / "attend"
        if not program.exists():
            shutil.copy(ATTEND, program)
        counters = self.directory / "counters"  # Of a build that measures what tests execute: it complains otherwise.
        counters.mkdir(exist_ok=True)
        counters.chmod(0o777)
        command = [str(program), "compute", "--input", "-", "--output", str(path)]
        return subprocess.run(command, input=self.x.read_bytes(), env=environment({**self.env, "GCOV_PREFIX": str(counters)}),
                              capture_output=True, timeout=PATIENCE, check=False, **user)

    def test_what_a_user_may_write_is_written_and_nothing_else(self):
        self.directory.chmod(0o755)
        writable, closed = self.folder / "writable.npy", self.folder / "closed.npy"
        writable.write_bytes(b"old" * 1000)
        writable.chmod(0o666)
        closed.write_bytes(b"old")
        closed.chmod(0o444)
        self.folder.chmod(0o555)
        self.addCleanup(self.folder.chmod, 0o755)
        owner = writable.stat().st_uid
        run = self.run_as_nobody(writable)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.check_holds_the_result(writable)
        self.assertEqual(writable.stat().st_uid, owner)
        for path, doing in ((closed, "write"), (self.folder / "new.npy", "create")):
            run = self.run_as_nobody(path)
            self.assertEqual((run.returncode, run.stderr.decode()), (5, f"attend: cannot {doing} {path}: Permission denied\n"))
        self.folder.chmod(0o777)
        run = self.run_as_nobody(closed)
        self.assertEqual(run.returncode, 5, "a file that may not be written is not replaced either")
        run = self.run_as_nobody(writable)
        self.assertEqual((run.returncode, writable.stat().st_uid), (0, owner))
        self.check_nothing_else("writable.npy", "closed.npy")

    def test_the_port_file_keeps_its_link(self):
        target, link = self.folder / "port", self.directory / "port"
        target.touch(0o600)
        link.symlink_to(target)
        command = [str(BINARY), "--listen", "127.0.0.1:0", "--port-file", str(link), "--drain-wait", "0s", "--log-level", "off"]
        server = subprocess.Popen(command, env=environment())
        try:
            for _ in range(PATIENCE * 100):
                if target.read_text().endswith("\n"):
                    break
                self.assertIsNone(server.poll())
                threading.Event().wait(0.01)
            port = int(target.read_text())
            self.assertTrue(link.is_symlink())
            self.assertEqual(stat.S_IMODE(target.stat().st_mode), 0o600)
            self.assertEqual(cli_harness.attend("health", "--endpoints", f"127.0.0.1:{port}").code, 0)
        finally:
            server.terminate()
            server.wait(PATIENCE)
        self.check_nothing_else("port")


class NanTest(cli_harness.CliTestCase):
    def test_rows_with_nan_are_counted_on_stderr(self):
        x = self.random(5, 8)
        path, clean = self.save("nan.npy", np.full((5, 8), np.nan, np.float32)), self.save("x.npy", x)
        run = self.attend_npz("compute", "--input", path)
        self.assertTrue(np.isnan(run.arrays[0]).all())
        self.assertIn("attend: warning: output is nothing but NaN (5 of 5 rows)", run.err)
        self.assertEqual(self.attend_ok("compute", "--input", clean, "--weights").err, "")
        # Causal: the third token and those behind it see the NaN.
        x[2, 3] = np.nan
        for dtype in ("float32", "float64", "float16", "bfloat16"):
            run = self.attend_ok("compute", "--input", self.save("one.npy", x), "--causal", "--return", "output,log_sum_exp", "--output",
                                 self.directory / "o.safetensors", "--dtype", dtype)
            self.assertIn("attend: warning: output holds NaN (3 of 5 rows)", run.err)
            self.assertIn("attend: warning: log_sum_exp holds NaN (3 of 5 numbers)", run.err)

    def test_a_batch_says_which_input(self):
        bad = self.save("bad.npy", np.full((2, 4), np.nan, np.float32))
        run = self.attend_ok("compute", "--input", self.save("fine.npy", self.random(2, 4)), "--input", bad)
        self.assertRegex(run.err, rf"^attend: warning: {bad}: output is nothing but NaN \(2 of 2 rows\)")

    def test_infinities_are_no_nan(self):
        """A row that sees nothing has a log-sum-exp of -inf."""
        x = self.save("x.npy", self.random(3, 4))
        mask = self.save("m.npy", np.zeros((3, 3), bool))
        self.assertEqual(self.attend_ok("compute", "--input", x, "--mask", mask, "--return", "output,log_sum_exp").err, "")


if __name__ == "__main__":
    unittest.main()
