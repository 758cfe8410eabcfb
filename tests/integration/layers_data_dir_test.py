"""Layers in a data folder: what survives a restart, and what is never written or served."""

import pathlib
import re
import tempfile
import threading
import unittest

import grpc

from attend_testing.errors import call_failure
from attend_testing.layers import BAD_NAMES, Weights, attend, chunks, embeddings, header, upload, upload_failure
from attend_testing.load import wait_until
from attend_testing.server import Server
from attend_testing.stubs import layers_pb
from attend_testing.tensors import assert_same_bits

GetLayer = layers_pb.GetLayerRequest
ListLayers = layers_pb.ListLayersRequest
DeleteLayer = layers_pb.DeleteLayerRequest
Code = grpc.StatusCode


class WithDataDir(unittest.TestCase):
    """Each test has a data folder of its own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="attend-layers-")
        self.addCleanup(directory.cleanup)
        self.data = pathlib.Path(directory.name) / "data"

    def start(self, *flags, **settings):
        server = Server("--data-dir", str(self.data), *flags, **settings)
        self.addCleanup(lambda: server.alive() and server.stop())
        return server

    def files(self):
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*") if not path.is_dir())


class ConfiguredTest(WithDataDir):
    def test_layers_of_the_configuration_are_read_only(self):
        file = self.data.parent / "layer.safetensors"
        file.write_bytes(Weights(1).file())
        with self.start("--layer", f"configured={file}") as server:
            self.assertTrue(server.layers.GetLayer(GetLayer(name="configured"), timeout=60).layer.read_only)
            failure = upload_failure(server.layers, [header("configured", replace=True), *chunks(Weights(2).file())])
            self.assertEqual((failure.code, failure.reason), (Code.FAILED_PRECONDITION, "LAYER_READ_ONLY"))
            failure = call_failure(server.layers.DeleteLayer, DeleteLayer(name="configured"))
            self.assertEqual((failure.code, failure.reason), (Code.FAILED_PRECONDITION, "LAYER_READ_ONLY"))
            tokens = embeddings(16)
            named = attend(server.stub, tokens, layer_name="configured")
            assert_same_bits(named, attend(server.stub, tokens, layer=Weights(1).inline()), "output")


class RestartTest(WithDataDir):
    def test_a_layer_whose_file_is_gone_can_be_deleted(self):
        with self.start() as server:
            upload(server.layers, "gone", Weights(1).file())
            (self.data / "layers" / "gone.layer").unlink()
            server.layers.DeleteLayer(DeleteLayer(name="gone"), timeout=60)
            self.assertEqual(call_failure(server.layers.GetLayer, GetLayer(name="gone")).code, Code.NOT_FOUND)

    def test_layers_survive(self):
        tokens = embeddings(16)
        with self.start() as server:
            kept = [
                upload(server.layers, "kept/1", Weights(1, heads=2).file(), config=layers_pb.LayerConfig(num_heads=2)),
                upload(server.layers, "kept/2", Weights(2).file("p."), prefix="p"),
                upload(server.layers, "seeded", init=layers_pb.SeededWeights(seed=-3, embed_dim=16)),
            ]
            upload(server.layers, "gone", Weights(3).file())
            server.layers.DeleteLayer(DeleteLayer(name="gone"), timeout=60)
            outputs = [attend(server.stub, tokens, layer_name=layer.name) for layer in kept]
        self.assertEqual(self.files(), ["layers/kept%1.layer", "layers/kept%2.layer", "layers/seeded.layer"])
        with self.start() as server:
            self.assertEqual(list(server.layers.ListLayers(ListLayers(), timeout=60).layers), kept)
            for layer, output in zip(kept, outputs, strict=True):
                assert_same_bits(attend(server.stub, tokens, layer_name=layer.name), output, layer.name)

    def test_damaged_files_are_not_served_and_do_not_stop_the_start(self):
        with self.start() as server:
            for name in ("good", "damaged"):
                upload(server.layers, name, Weights(1).file())
        path = self.data / "layers" / "damaged.layer"
        content = bytearray(path.read_bytes())
        content[300] ^= 1
        path.write_bytes(content)
        with self.start() as server:
            self.assertEqual([layer.name for layer in server.layers.ListLayers(ListLayers(), timeout=60).layers], ["good"])
            wait_until(lambda: re.search("damaged.layer.*checksum|checksum.*damaged.layer", server.log()), "it is written down")
        self.assertEqual([file.rsplit(".", 1)[0] for file in self.files()], ["layers/good", "quarantine/damaged.layer"])

    def test_names_touch_nothing_outside(self):
        with self.start() as server:
            for name in BAD_NAMES:
                upload_failure(server.layers, [header(name), *chunks(b"x")])
            self.assertEqual(self.files(), [])
            self.assertEqual([path.name for path in self.data.parent.iterdir()], ["data"])

    def test_cancelled_and_refused_uploads_leave_no_files(self):
        with self.start() as server:
            stop, started = threading.Event(), threading.Event()

            def endless():
                yield header("cancelled")
                yield layers_pb.CreateLayerRequest(chunk=b"x" * 1000)
                started.set()
                stop.wait(60)

            future = server.layers.CreateLayer.future(endless(), timeout=60)
            started.wait(60)
            wait_until(lambda: len(self.files()) == 1, "the upload's file is there")
            future.cancel()
            wait_until(lambda: self.files() == [], "the cancelled upload's file is removed")
            stop.set()
            upload_failure(server.layers, [header("refused"), *chunks(b"no layer")])
            wait_until(lambda: self.files() == [], "the refused upload's file is removed")
            future = server.layers.CreateLayer.future(iter([header("late"), *chunks(Weights(1).file(), 64)]), timeout=60)
            server.terminate()
            self.assertEqual(server.wait(), 0)
            self.assertLessEqual(set(self.files()), {"layers/late.layer"})

    def test_one_server_for_a_folder(self):
        with self.start(), self.assertRaisesRegex(RuntimeError, "another server"):
            Server("--data-dir", str(self.data))

    def test_more_stored_layers_than_allowed_stop_the_start(self):
        with self.start() as server:
            for name in ("a", "b"):
                upload(server.layers, name, init=layers_pb.SeededWeights(embed_dim=16))
        for flags in (("--max-layers", "1"), ("--max-layers-bytes", "4KiB")):
            with self.assertRaisesRegex(RuntimeError, flags[0]):
                Server("--data-dir", str(self.data), *flags)
        self.assertEqual(self.files(), ["layers/a.layer", "layers/b.layer"])


if __name__ == "__main__":
    unittest.main()
