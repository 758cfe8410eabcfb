"""What the Python package uploads, and what becomes of sources that cannot be read."""

import asyncio
import json
import logging
import pathlib
import resource
import tempfile
import unittest
import warnings

import attend
import attend.aio
import numpy as np

from attend_testing.stubs import layers_pb
from fake_server_test import Fake, serving


class UploadTest(unittest.TestCase):
    def test_named_arrays_become_a_safetensors_file(self):
        arrays = {"p.b": np.arange(6, dtype=np.float16).reshape(2, 3), "p.a": np.arange(3, dtype=">f8")}
        fake = Fake()
        with serving(fake) as target, attend.Client(target) as client:
            layer = client.layers.create("x/y", arrays, num_heads=2, prefix="p.", replace=True, etag="e", sha256="0A")
        self.assertEqual((layer.name, layer.weight_types), ("a", ("bfloat16",)))
        header = fake.uploaded[0].header
        self.assertEqual((header.name, header.config.num_heads, header.prefix), ("x/y", 2, "p."))
        self.assertEqual((header.replace, header.etag, header.sha256), (True, "e", "0a"))
        content = b"".join(message.chunk for message in fake.uploaded[1:])
        size = int.from_bytes(content[:8], "little")
        self.assertEqual(size % 8, 0)
        for name, entry in json.loads(content[8 : 8 + size]).items():
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            read = np.frombuffer(content[begin:end], {"F16": "<f2", "F64": "<f8"}[entry["dtype"]]).reshape(entry["shape"])
            np.testing.assert_array_equal(read, arrays[name])

    def test_what_is_not_below_the_prefix_stays_here(self):
        arrays = {"a.1.x": np.zeros(1, np.float32), "a.10.x": np.zeros(1, np.float32), "phase": np.zeros(1, complex)}
        fake = Fake()
        with serving(fake) as target, attend.Client(target) as client:
            for prefix in ("a.1.", "a.1"):
                client.layers.create("a", arrays, prefix=prefix)
                content = b"".join(message.chunk for message in fake.uploaded[1:])
                self.assertEqual(list(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])), ["a.1.x"])
            with self.assertRaisesRegex(ValueError, r"no name in `source` has the prefix 'b\.'; the first are 'a.1.x', 'a.10.x'"):
                client.layers.create("a", arrays, prefix="b")
            with self.assertRaisesRegex(TypeError, "phase has the type complex128"):
                client.layers.create("a", arrays)

    def test_masks_and_positions_that_a_module_carries_are_for_the_server_to_know(self):
        arrays = {"w": np.zeros(1, np.float32), "mask": np.array([[True, False]]), "masked_bias": np.arange(2, dtype=">i8")}
        fake = Fake()
        with serving(fake) as target, attend.Client(target) as client:
            client.layers.create("a", arrays)
        content = b"".join(message.chunk for message in fake.uploaded[1:])
        size = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        self.assertEqual({name: entry["dtype"] for name, entry in header.items()}, {"w": "F32", "mask": "BOOL", "masked_bias": "I64"})
        self.assertEqual(data[4:6], b"\1\0")
        self.assertEqual(list(np.frombuffer(data[6:], "<i8")), [0, 1])

    def test_a_path_with_a_models_configuration_beside_it_is_refused(self):
        fake = Fake()
        with tempfile.TemporaryDirectory() as folder, serving(fake) as target, attend.Client(target) as client:
            path = pathlib.Path(folder) / "model.safetensors"
            path.write_bytes(b"weights")
            client.layers.create("a", path)
            (path.parent / "config.json").write_text("{}")
            with self.assertRaisesRegex(ValueError, "attend layers upload NAME .*ignore_config_json=True"):
                client.layers.create("a", path)
            client.layers.create("a", path, ignore_config_json=True)

    def test_frequencies_around_the_prefix_go_with_it(self):
        names = ["a.1.x", "a.1.rotary_emb.inv_freq", "a.rotary_emb.inv_freq", "rotary_emb.inv_freq", "b.rotary_emb.inv_freq"]
        fake = Fake()
        with serving(fake) as target, attend.Client(target) as client:
            client.layers.create("a", {name: np.zeros(1, np.float32) for name in names}, prefix="a.1.")
        content = b"".join(message.chunk for message in fake.uploaded[1:])
        self.assertEqual(set(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])), set(names[:-1]))

    def uploads_raise(self, error, text, source, calls=0):
        """Of both clients, also when no server is asked."""

        async def asynchronous(target):
            async with attend.aio.Client(target) as client:
                await client.layers.create("a", source)

        fake = Fake()
        with serving(fake) as target, attend.Client(target) as client, warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            with self.assertRaisesRegex(error, text):
                client.layers.create("a", source)
            with self.assertRaisesRegex(error, text):
                asyncio.run(asynchronous(target))
        if not calls:
            self.assertEqual(fake.calls, 0, "a source that cannot be opened is not even announced")

    def test_a_source_that_cannot_be_opened(self):
        with tempfile.TemporaryDirectory() as directory:
            self.uploads_raise(IsADirectoryError, "Is a directory", directory)
            self.uploads_raise(FileNotFoundError, "missing.safetensors", directory + "/missing.safetensors")

    def test_a_source_that_cannot_be_read_to_its_end(self):
        """A process cannot read its memory at address 0."""
        logging.getLogger("grpc").addHandler(handler := logging.NullHandler())
        self.addCleanup(logging.getLogger("grpc").removeHandler, handler)
        self.uploads_raise(OSError, "Input/output error", "/proc/self/mem", calls=2)

    def test_an_upload_is_not_kept_in_memory(self):
        def resident():
            return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

        class Reader(Fake):
            def CreateLayer(self, requests, context):
                before, self.size = resident(), 0
                for message in requests:
                    self.size += len(message.chunk)
                self.grown = resident() - before
                return layers_pb.CreateLayerResponse()

        async def asynchronous(target):
            async with attend.aio.Client(target) as client:
                await client.layers.create("a", file.name)

        fake = Reader()
        with serving(fake) as target, attend.Client(target) as client, tempfile.NamedTemporaryFile() as file:
            file.truncate(300 << 20)
            for upload in (lambda: client.layers.create("a", file.name), lambda: asyncio.run(asynchronous(target))):
                upload()
                self.assertEqual(fake.size, 300 << 20)
                self.assertLess(fake.grown, 150 << 20)

    def test_configurations_that_are_none_are_refused_here(self):
        with attend.Client("127.0.0.1:1") as client:
            for text, arguments in (
                ("exactly one", {}),
                ("exactly one", {"source": b"", "init": (1, 8)}),
                ("num_head", {"source": b"", "config": {"num_head": 3}}),
                ("num_heads is 4, and 3 in config", {"source": b"", "num_heads": 4, "config": {"num_heads": 3}}),
                ("^num_kv_heads is 0", {"source": b"", "num_kv_heads": 0}),
                ("^etag is empty", {"source": b"", "replace": True, "etag": ""}),
                ("^sha256 is empty", {"source": b"", "sha256": ""}),
            ):
                with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                    client.layers.create("a", **arguments)
            with self.assertRaisesRegex(ValueError, "^etag is empty"):
                client.layers.delete("a", etag="")


if __name__ == "__main__":
    unittest.main()
