"""64 clients replace, list, delete and call one layer: every answer is that of one version, and nothing is left over.

Ten seconds long; SECONDS=60 in the environment makes it a minute. Under AddressSanitizer the server's end says whether
anything leaked.
"""

import collections
import os
import pathlib
import random
import tempfile
import threading
import time
import unittest

import grpc

from attend_testing.layers import Weights, attend, embeddings, upload
from attend_testing.server import PATIENCE, Server
from attend_testing.stubs import layers_grpc, layers_pb, pb_grpc

SECONDS = float(os.environ.get("SECONDS", "10"))
CLIENTS = 64
CHANNELS = 8
VERSIONS = 4

MUST_BE_DONE = ("replace", "list", "delete", "call")

# What may happen to a client of a layer that others replace and delete, on a busy server.
ALLOWED = {
    grpc.StatusCode.NOT_FOUND,  # Deleted a moment ago.
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAVAILABLE,  # With RetryInfo: too many uploads, a full queue.
}


class Crowd:
    def __init__(self, server):
        self.channels = [server.new_channel() for _ in range(CHANNELS)]
        self.files = [Weights(i).file() for i in range(VERSIONS)]
        self.tokens = embeddings(16)
        self.expected = {
            attend(server.stub, self.tokens, layer=Weights(i).inline()).tobytes() for i in range(VERSIONS)
        }
        self.counts = collections.Counter()
        self.wrong = []
        self.lock = threading.Lock()
        self.end = time.monotonic() + SECONDS

    def run_client(self, number):
        stub = pb_grpc.AttentionServiceStub(self.channels[number % CHANNELS])
        layers = layers_grpc.LayerServiceStub(self.channels[number % CHANNELS])
        chance = random.Random(number)
        actions = {
            "replace": lambda: upload(layers, "shared", chance.choice(self.files), 1000, replace=True),
            "create": lambda: upload(layers, "shared", chance.choice(self.files)),
            "list": lambda: self.check_list(layers),
            "delete": lambda: layers.DeleteLayer(layers_pb.DeleteLayerRequest(name="shared"), timeout=60),
            "call": lambda: self.check_call(stub),
        }
        weights = {"replace": 10, "create": 3, "list": 10, "delete": 1, "call": 76}
        while self.goes_on() and not self.wrong:
            action = chance.choices(list(weights), weights.values())[0]
            outcome = "done"
            try:
                actions[action]()
            except grpc.RpcError as error:
                outcome = error.code().name
                if error.code() not in ALLOWED:
                    self.wrong.append(f"{action}: {error}")
            with self.lock:
                self.counts[action, outcome] += 1

    def goes_on(self):
        """Until its end; on a machine that has hardly come to anything by then, until everything has been done once."""
        late = time.monotonic() - self.end
        return late < (PATIENCE if any(self.counts[action, "done"] == 0 for action in MUST_BE_DONE) else 0)

    def check_call(self, stub):
        if attend(stub, self.tokens, layer_name="shared").tobytes() not in self.expected:
            self.wrong.append("an answer that no version gives")

    def check_list(self, layers):
        names = [layer.name for layer in layers.ListLayers(layers_pb.ListLayersRequest(), timeout=60).layers]
        if names not in ([], ["shared"]):
            self.wrong.append(f"a list of {names}")


class LoadTest(unittest.TestCase):
    def run_crowd(self, *flags):
        with Server("--threads", "2", *flags) as server:
            upload(server.layers, "shared", Weights(0).file())
            crowd = Crowd(server)
            threads = [threading.Thread(target=crowd.run_client, args=(i,)) for i in range(CLIENTS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print({" ".join(key): count for key, count in sorted(crowd.counts.items())})
            self.assertEqual(crowd.wrong, [])
            for action in MUST_BE_DONE:
                self.assertGreater(crowd.counts[action, "done"], 0, action)
            for channel in crowd.channels:
                channel.close()

    def test_on_disk(self):
        with tempfile.TemporaryDirectory(prefix="attend-load-") as directory:
            self.run_crowd("--data-dir", directory)
            left = [path.name for path in pathlib.Path(directory).rglob("*") if not path.is_dir()]
            self.assertIn(left, ([], ["shared.layer"]))

    def test_in_memory(self):
        self.run_crowd()


if __name__ == "__main__":
    unittest.main()
