"""examples/notebook: executed as Jupyter does, against a real server. Its own asserts compare the server with NumPy."""

import json
import unittest

from attend_testing.server import SOURCE_DIR, Server
from clean_environment import CleanEnvironmentTestCase

NOTEBOOK = SOURCE_DIR / "examples" / "notebook" / "qkv_attention.ipynb"


def outputs(path, kind):
    """The outputs of a kind, of all cells but the first, which says what server there is."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    found = []
    for output in [output for cell in cells[1:] for output in cell["outputs"]]:
        if kind == "text" and output["output_type"] == "stream":
            found.append("".join(output["text"]))
        if kind == "image" and "image/png" in output.get("data", {}):
            found.append(output["data"]["image/png"])
    return found


class NotebookTest(CleanEnvironmentTestCase):
    def test_it_runs_and_prints_what_it_shows(self):
        self.pip("install", "-r", SOURCE_DIR / "tests" / "python" / "notebook-requirements.txt")
        command = ["jupyter", "nbconvert", "--to", "notebook", "--execute", "--output-dir", self.directory / "out", NOTEBOOK]
        with Server() as server:
            self.run_in(command, timeout=300, ATTEND_ENDPOINTS=server.address, MPLCONFIGDIR=str(self.directory))
        executed = self.directory / "out" / NOTEBOOK.name
        self.assertEqual(outputs(executed, "text"), outputs(NOTEBOOK, "text"))
        self.assertEqual(len(outputs(executed, "image")), 4)


if __name__ == "__main__":
    unittest.main()
