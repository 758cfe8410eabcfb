"""Makes the sample files of this folder, which README and docs/ use: run `python3 examples/data/make.py` in the clone.

x.npy, tokens.txt and layer.safetensors are the case of examples/notebook, which `attend demo` shows too: five tokens, and the
layer that PyTorch draws after torch.manual_seed(42). The other files are random numbers.
"""

import pathlib
import shutil

import numpy as np

HERE = pathlib.Path(__file__).parent
LAYER = HERE.parents[1] / "tests" / "data" / "golden" / "init_seed42_64.safetensors"  # Written by PyTorch.


def main():
    rng = np.random.default_rng(0)
    np.save(HERE / "x.npy", np.random.default_rng(42).standard_normal((5, 64), dtype=np.float32))
    shutil.copy(LAYER, HERE / "layer.safetensors")
    (HERE / "tokens.txt").write_text("The\ncat\ndrinks\nits\nmilk\n")
    np.save(HERE / "three-and-four.npy", rng.standard_normal((7, 64), np.float32))
    q, k, v = (rng.standard_normal((4, 8, 16), np.float32) for _ in range(3))  # Heads, tokens, head size.
    for name, array in {"q": q, "k": k, "v": v, "k1": k[:, :5], "v1": v[:, :5], "k2": k[:, 5:], "v2": v[:, 5:]}.items():
        np.save(HERE / f"{name}.npy", array)


if __name__ == "__main__":
    main()
