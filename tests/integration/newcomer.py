#!/usr/bin/python3
"""Runs README's blocks as they stand, in one shell, as somebody does who has cloned the sources and run `make demo`.

    tests/integration/newcomer.py          in the clone; `make newcomer`

Other than in readme_test.py nothing stands in for anything: ports are README's, the blocks that install run too ("not run:
installs ..." is a mark for the tests of each day), `python` is what README leaves in PATH. Left out are the first block, which
made all this, blocks of text, and the C++ lines, which are no program; docs/clients/cpp.md has one.
"""

import os
import pathlib
import re
import subprocess
import sys

from readme_blocks import MARK, all_blocks, shell_script, waiting_for_servers

CLONE = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 1800  # A block may fetch and build a tool.


def is_typed(block):
    return block.language in ("sh", "python") and (block.run or block.reason.startswith("installs"))


def piece(block):
    if block.language == "python":
        return f"python - <<'PYTHON'\n{block.code}PYTHON\n"
    return waiting_for_servers(block.code, "127.0.0.1:50051")


def main():
    first, *others = all_blocks((CLONE / "README.md").read_text())
    assert "make demo" in first.code, "README begins in another way"
    blocks = [block for block in others if is_typed(block)]
    environment = {"HOME": os.environ["HOME"], "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", shell_script(map(piece, blocks))], cwd=CLONE, env=environment, timeout=PATIENCE,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    outputs = done.stdout.split(MARK)[1:]
    for block, output in zip(blocks, outputs, strict=False):
        print(f"---- README.md:{block.line}\n{block.code}{re.sub('(?m)^', '    ', output)}")
    if done.returncode != 0:
        sys.exit(f"newcomer: README.md:{blocks[len(outputs) - 1].line}: exit code {done.returncode}")
    for block, output in zip(blocks, outputs, strict=True):
        if missing := [text for text in block.expected if text not in output]:
            sys.exit(f"newcomer: README.md:{block.line}: does not say {missing}")
    print(f"newcomer: {len(blocks)} blocks of README work as they stand")


if __name__ == "__main__":
    main()
