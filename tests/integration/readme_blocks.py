"""The examples in README: every fenced block, and what is to be done with it.

Each block follows, on lines of their own, a mark and possibly texts that its output must hold:

    <!-- run -->
    <!-- expect: TEXT -->
    ```sh

A block that cannot be run says why: `<!-- not run: REASON -->`. A block without a mark is an error.

As a program, writes the C++ block for the build to compile, calling `endpoint`: readme_blocks.py README.md FILE
"""

import dataclasses
import pathlib
import re
import sys

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKS = re.compile(r"(?:^|\n)<!-- (run|not run: \S.*) -->\n((?:<!-- expect: .* -->\n)*)\Z")


@dataclasses.dataclass
class Block:
    line: int  # Of the opening fence.
    language: str
    code: str
    run: bool
    expected: list


def all_blocks(text):
    """Every block of `text`, in order; an error for a block without a mark and for a mark without a block."""
    blocks = []
    for fence in _FENCE.finditer(text):
        line = text[: fence.start()].count("\n") + 1
        marks = _MARKS.search(text[: fence.start()])
        if marks is None:
            raise ValueError(f"line {line}: a block needs the mark <!-- run --> or <!-- not run: REASON --> above it")
        expected = re.findall(r"<!-- expect: (.*) -->", marks[2])
        blocks.append(Block(line, fence[1], fence[2], marks[1] == "run", expected))
    marks = len(re.findall(r"<!-- (?:not )?run", text))
    if marks != len(blocks):
        raise ValueError(f"{marks} marks, but {len(blocks)} blocks that directly follow one")
    return blocks


def the_block(text, language):
    (block,) = [block for block in all_blocks(text) if block.language == language]
    return block


if __name__ == "__main__":
    cpp = the_block(pathlib.Path(sys.argv[1]).read_text(), "cpp").code
    assert '"localhost:50051"' in cpp, "the C++ example calls another endpoint than the rest of README"
    pathlib.Path(sys.argv[2]).write_text(cpp.replace('"localhost:50051"', "endpoint"))
