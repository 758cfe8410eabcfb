"""The `attend` command against a server of version 0.1: results that are right, or a sentence that names the version."""

import json
import unittest

import numpy as np

from attend_testing import oracle, version_0_1
from attend_testing.stubs import layers_pb
from cli_harness import GOLDEN, CliTestCase

LAYER = GOLDEN / "notebook_5x64.safetensors"


class OldServerTest(CliTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.old = version_0_1.FilterServer(cls.server.address)
        cls.addClassCleanup(cls.old.__exit__)

    def setUp(self):
        super().setUp()
        self.today, self.env = self.env, {**self.env, "ATTEND_ENDPOINTS": self.old.endpoint}
        self.q, self.k, self.v = self.random(1, 2, 5, 8), self.random(1, 2, 9, 8), self.random(1, 2, 9, 8)
        files = [self.save(f"{name}.npy", array) for name, array in (("q", self.q), ("k", self.k), ("v", self.v))]
        self.sdpa = ("sdpa", "--query", files[0], "--key", files[1], "--value", files[2])

    def test_what_it_knows_gives_the_same_bits(self):
        flags = (*self.sdpa, "--causal", "--window-left", 3, "--return", "log_sum_exp")
        old, today = self.attend_npz(*flags), self.attend_npz(*flags, env=self.today)
        np.testing.assert_array_equal(old.arrays, today.arrays)
        scores = oracle.attend(self.q, self.k, self.v, oracle.Options(causal="bottom_right", left=3)).log_sum_exp
        self.assertEqual(old.arrays[-1].shape, scores.shape)

    def test_what_it_would_ignore_is_an_error_that_names_field_and_version(self):
        bthe = [self.save(f"t{i}.npy", array.swapaxes(1, 2)) for i, array in enumerate((self.q, self.k, self.v))]
        layout = ("sdpa", "--query", bthe[0], "--key", bthe[1], "--value", bthe[2], "--layout", "bthe")
        cases = {
            "options.scale": (*self.sdpa, "--scale", 0.3),
            "options.softcap": (*self.sdpa, "--softcap", 2),
            "options.precision": (*self.sdpa, "--precision", "fast"),
            "layout": layout,
        }
        for field, flags in cases.items():
            with self.subTest(field):
                self.attend_ok(*flags, env=self.today)
                self.assert_fails(self.attend(*flags), 3, r"0\.1\.0", f"`{field}`")

    def test_layers_with_what_it_would_ignore_are_not_uploaded(self):
        config = self.directory / "config.json"
        for name, value in {"norm_epsilon": {"norm_epsilon": 0.1}, "options.scale": {"options": {"scale": 0.1}}}.items():
            with self.subTest(name):
                config.write_text(json.dumps(value))
                run = self.attend("layers", "upload", "refused", LAYER, "--config", config)
                self.assert_fails(run, 3, r"0\.1\.0", f"`header.config.{name}`")
                self.assertEqual(len(self.server.layers.ListLayers(layers_pb.ListLayersRequest(), timeout=60).layers), 0)

    def test_other_layers_are(self):
        self.attend_ok("layers", "upload", "plain", LAYER)
        self.assertIn("plain", self.attend_ok("layers", "list").text)
        x = self.save("x.npy", self.random(5, 64))
        old, today = (self.attend_ok("compute", "--input", x, "--layer", "plain", env=env) for env in ({}, self.today))
        self.assertEqual(old.out, today.out)
        self.attend_ok("layers", "get", "plain", "-o", "table")
        self.attend_ok("layers", "delete", "plain")

    def test_the_rest_works(self):
        self.assertIn("0.1.0", self.attend_ok("info").text)
        self.assert_fails(self.attend(*self.sdpa, "--estimate"), 3, r"0\.1\.0", "EstimateCost")


if __name__ == "__main__":
    unittest.main()
