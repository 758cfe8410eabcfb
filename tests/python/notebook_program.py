"""The program of six lines that gives the notebook's result, and the check of what it wrote.

    notebook_program.py write ADDRESS FOLDER      FOLDER/program.py, and the files that it reads
    notebook_program.py check FOLDER              FOLDER/result.npz against the notebook's result in float64
"""

import pathlib
import shutil
import sys

import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from attend_testing import safetensors

NOTEBOOK = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden" / "notebook_5x64.safetensors"

PROGRAM = """\
import attend, numpy as np
client = attend.Client("{address}")
client.layers.create("notebook", "weights.safetensors", replace=True)
result = client.attend(np.load("x.npy"), layer="notebook", outputs=["output", "attention_weights"])
np.savez("result.npz", output=result.output, weights=result.attention_weights)
print(result.output.shape, result.timing.compute, "ms")
"""


def write(address, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    np.save(folder / "x.npy", safetensors.load(NOTEBOOK)[0]["x"])
    shutil.copy(NOTEBOOK, folder / "weights.safetensors")
    (folder / "program.py").write_text(PROGRAM.format(address=address))


def check(folder):
    golden, _ = safetensors.load(NOTEBOOK)
    result = np.load(pathlib.Path(folder) / "result.npz")
    output, weights = golden["output_f64"], golden["attention_weights_f64"]
    np.testing.assert_allclose(result["output"], output, rtol=0, atol=2e-6 * np.abs(output).max() + 1e-6)
    np.testing.assert_allclose(result["weights"], weights, rtol=0, atol=3e-6)


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](*sys.argv[2:])
