"""Layers and everything that can go wrong around a data folder: kill -9 at each step, full disks, read-only folders."""

import ctypes
import os
import pathlib
import re
import resource
import signal
import tempfile
import unittest

import grpc

from attend_testing.errors import failure_of
from attend_testing.layers import Weights, attend, embeddings, upload
from attend_testing.server import BUILD_DIR, Server
from attend_testing.stubs import layers_pb
from attend_testing.tensors import assert_same_bits

KILL_SERVER = BUILD_DIR / "bin" / "layer_kill_server"
Code = grpc.StatusCode
GetLayer, ListLayers, DeleteLayer = layers_pb.GetLayerRequest, layers_pb.ListLayersRequest, layers_pb.DeleteLayerRequest

OLD, NEW = Weights(1), Weights(2)
CHUNK = 1000


class Folder(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="attend-crash-")
        self.addCleanup(directory.cleanup)
        self.data = pathlib.Path(directory.name) / "data"

    def files(self):
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*") if not path.is_dir())

    def start(self, *flags, **settings):
        server = Server("--data-dir", str(self.data), *flags, **settings)
        self.addCleanup(lambda: server.alive() and server.stop())
        return server

    def store_old(self, name="layer"):
        with self.start() as server:
            return upload(server.layers, name, OLD.file())

    def assert_serves(self, server, weights, name="layer"):
        tokens = embeddings(16)
        named = attend(server.stub, tokens, layer_name=name)
        assert_same_bits(named, attend(server.stub, tokens, layer=weights.inline()), "output")


class KillTest(Folder):
    """A server that is killed at step N of what it does to its folder; then another starts there."""

    def kill_at(self, step, action):
        """Runs `action` against a server that kills itself there; whether the call still succeeded."""
        server = self.start(binary=KILL_SERVER, environment={"ATTEND_KILL_AT_STEP": str(step)})
        try:
            action(server.layers)
            succeeded = True
        except grpc.RpcError:
            succeeded = False
        if not succeeded:
            self.assertEqual(server.wait(), -signal.SIGKILL)
        server.stop(check=succeeded)
        return succeeded

    def steps_of(self, action):
        """How many steps `action` takes when nothing happens to it."""
        server = self.start(binary=KILL_SERVER)
        action(server.layers)
        return len(re.findall(r"^step \d+$", server.stop(), re.MULTILINE))

    def replace(self, layers):
        return upload(layers, "layer", NEW.file(), CHUNK, replace=True)

    def test_replacing(self):
        steps = self.steps_of(self.replace)
        self.assertGreaterEqual(steps, len(NEW.file()) // CHUNK + 5)
        outcomes = []
        for step in range(steps + 1):
            with self.subTest(step=step):
                with self.start() as server:
                    old = upload(server.layers, "layer", OLD.file(), replace=True)
                answered = self.kill_at(step, self.replace)
                with self.start() as server:
                    self.assertEqual(self.files(), ["layers/layer.layer"])
                    layer = server.layers.GetLayer(GetLayer(name="layer"), timeout=60).layer
                    replaced = layer != old
                    outcomes.append(replaced)
                    self.assert_serves(server, NEW if replaced else OLD)
                    self.assertNotIn("error", server.log())
                self.assertEqual(answered, step == steps)
                self.assertTrue(replaced or not answered, "what was answered stays")
        self.assertEqual(outcomes, sorted(outcomes), "the new version once it is there stays there")
        self.assertEqual((outcomes[0], outcomes[-1]), (False, True))

    def test_creating(self):
        def create(layers):
            return upload(layers, "layer", NEW.file(), CHUNK)

        steps = self.steps_of(create)
        self.assertGreaterEqual(steps, len(NEW.file()) // CHUNK + 5)
        outcomes = []
        for step in range(steps + 1):
            with self.subTest(step=step):
                with self.start() as server:
                    if server.layers.ListLayers(ListLayers(), timeout=60).layers:
                        server.layers.DeleteLayer(DeleteLayer(name="layer"), timeout=60)
                answered = self.kill_at(step, create)
                with self.start() as server:
                    names = [layer.name for layer in server.layers.ListLayers(ListLayers(), timeout=60).layers]
                    self.assertIn(names, ([], ["layer"]))
                    self.assertEqual(self.files(), [f"layers/{name}.layer" for name in names])
                    outcomes.append(bool(names))
                    if names:
                        self.assert_serves(server, NEW)
                self.assertEqual(answered, step == steps)
                self.assertTrue(names or not answered, "what was answered stays")
        self.assertEqual(outcomes, sorted(outcomes), "the layer once it is there stays there")
        self.assertEqual((outcomes[0], outcomes[-1]), (False, True))

    def test_deleting(self):
        def delete(layers):
            layers.DeleteLayer(DeleteLayer(name="layer"), timeout=60)

        for step in range(2):
            with self.subTest(step=step):
                self.store_old()
                self.assertFalse(self.kill_at(step, delete))
                with self.start() as server:
                    self.assertEqual(list(server.layers.ListLayers(ListLayers(), timeout=60).layers), [])
                    self.assertEqual(self.files(), [])


def mount(source, target, kind, flags=0, data=""):
    """mount(2); False where it is not permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, data.encode()) == 0


def respect_permissions():
    """For the program that is started next: root may not write anywhere any more, and others never could."""
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
    if os.geteuid() == 0:
        for capability in (dac_override, dac_read_search):
            if ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0) != 0:
                raise PermissionError("prctl")


class DiskTest(Folder):
    def upload_failure(self, server, weights):
        with self.assertRaises(grpc.RpcError) as caught:
            upload(server.layers, "layer", weights.file(), CHUNK, replace=True)
        return failure_of(caught.exception)

    def assert_full(self, server, large):
        failure = self.upload_failure(server, large)
        self.assertEqual((failure.code, failure.reason), (Code.RESOURCE_EXHAUSTED, "DISK_FULL"), failure.message)
        self.assertIn("--data-dir", failure.message)
        self.assertIsNone(failure.retry_seconds)
        self.assertEqual(self.files(), ["layers/layer.layer"])
        self.assert_serves(server, OLD)
        upload(server.layers, "layer", NEW.file(), CHUNK, replace=True)
        self.assert_serves(server, NEW)

    def test_a_file_size_limit(self):
        self.store_old()

        def limit_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, 8 << 10))

        with self.start(prepare=limit_files) as server:
            self.assert_full(server, Weights(3, dim=64))

    def mount(self, flags=0, data=""):
        self.data.mkdir(exist_ok=True)
        if not mount("tmpfs", self.data, "tmpfs", flags, data):
            self.assertNotIn("CI", os.environ, "mounting is not permitted here, and CI leaves nothing out")
            self.skipTest("mounting is not permitted here")
        self.addCleanup(lambda: ctypes.CDLL(None).umount2(str(self.data).encode(), 2))

    def test_a_full_disk(self):
        self.mount(data="size=48k,nr_inodes=64")
        self.store_old()
        with self.start() as server:
            self.assert_full(server, Weights(3, dim=64))

    def assert_read_only(self, server):
        failure = self.upload_failure(server, NEW)
        self.assertEqual((failure.code, failure.reason), (Code.FAILED_PRECONDITION, "DATA_DIR_READ_ONLY"))
        self.assertIn("--data-dir", failure.message)
        self.assert_serves(server, OLD)
        with self.assertRaises(grpc.RpcError) as caught:
            server.layers.DeleteLayer(DeleteLayer(name="layer"), timeout=60)
        self.assertEqual(failure_of(caught.exception).reason, "DATA_DIR_READ_ONLY")
        self.assert_serves(server, OLD)
        self.assertEqual(self.files(), ["layers/layer.layer"])

    def test_a_file_system_that_becomes_read_only(self):
        self.mount()
        self.store_old()
        remount_read_only = 32 | 1
        with self.start() as server:
            self.assertTrue(mount("tmpfs", self.data, "tmpfs", remount_read_only))
            self.assert_read_only(server)
        with self.start() as server:
            self.assert_read_only(server)

    def test_a_folder_without_permission_to_write(self):
        self.store_old()
        layers = self.data / "layers"
        layers.chmod(0o500)
        self.addCleanup(lambda: layers.chmod(0o700))
        with self.start(prepare=respect_permissions) as server:
            self.assert_read_only(server)


if __name__ == "__main__":
    unittest.main()
