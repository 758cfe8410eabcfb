"""Seeded layers are PyTorch's own: torch.manual_seed(seed), then three torch.nn.Linear, bit for bit."""

import os
import pathlib
import random
import subprocess
import unittest

import numpy as np
import torch

TOOL = pathlib.Path(os.environ["ATTEND_BUILD_DIR"]) / "bin" / "checkpoint_tool"


def of_torch(seed, embed_dim):
    torch.manual_seed(seed)
    linears = [torch.nn.Linear(embed_dim, embed_dim) for _ in range(3)]
    arrays = [parameter.detach().numpy().ravel() for linear in linears for parameter in (linear.weight, linear.bias)]
    return np.concatenate(arrays)


def of_attend(seed, embed_dim):
    done = subprocess.run([TOOL, "seeded", str(seed), str(embed_dim)], capture_output=True, check=True)
    return np.frombuffer(done.stdout, "<f4")


class TorchInitTest(unittest.TestCase):
    def check(self, seed, embed_dim):
        with self.subTest(seed=seed, embed_dim=embed_dim):
            expected, actual = of_torch(seed, embed_dim), of_attend(seed, embed_dim)
            self.assertEqual(actual.size, expected.size)
            self.assertEqual(np.count_nonzero(actual.view(np.uint32) != expected.view(np.uint32)), 0)

    def test_sizes_around_the_widths_of_vectors(self):
        for embed_dim in (*range(1, 20), 31, 32, 33, 63, 65, 100, 384, 768):
            self.check(42, embed_dim)

    def test_seeds_of_all_kinds(self):
        for seed in (0, 1, 7, -1, -2, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 5, -(2**31), -(2**63), 2**63 - 1):
            self.check(seed, 24)

    def test_random_seeds_and_sizes(self):
        rng = random.Random(5)
        for _ in range(60):
            self.check(rng.randrange(-(2**63), 2**63), rng.randrange(1, 200))


if __name__ == "__main__":
    unittest.main()
