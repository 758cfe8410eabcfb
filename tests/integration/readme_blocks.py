"""The examples in README and in docs/clients: every fenced block, and what is to be done with it.

Each block follows, on lines of their own, a mark and possibly texts that its output must hold:

    <!-- run -->
    <!-- expect: TEXT -->
    ```sh

A block that cannot be run says why: `<!-- not run: REASON -->`. One that is the contents of a file says which:
`<!-- file: NAME -->`. A block without a mark is an error.

As a program:

    readme_blocks.py README.md FILE          writes the C++ block for the build to compile, calling `endpoint`
    readme_blocks.py files PAGE FOLDER       writes the files of a page
"""

import dataclasses
import pathlib
import re
import sys

MARK = "[the next block of the document]"  # Stands in stdout before what a block writes.

_HEAD = """set -euo pipefail
trap 'jobs=$(jobs -p); [[ -z $jobs ]] || { kill $jobs; wait; }' EXIT
"""
# Whoever types the lines is slower than the start of a server.
_WAIT_FOR = "for _ in $(seq 600); do (exec 3<>/dev/tcp/{}/{}) 2>/dev/null && break; sleep 0.05; done"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKS = re.compile(r"(?:^|\n)<!-- (run|not run: \S.*|file: \S+) -->\n((?:<!-- expect: .* -->\n)*)\Z")


@dataclasses.dataclass
class Block:
    line: int  # Of the opening fence.
    language: str
    code: str
    run: bool
    expected: list
    file: str = ""  # Of which it is the contents.
    reason: str = ""  # Why it is not run.


def all_blocks(text):
    """Every block of `text`, in order; an error for a block without a mark and for a mark without a block."""
    blocks = []
    for fence in _FENCE.finditer(text):
        line = text[: fence.start()].count("\n") + 1
        marks = _MARKS.search(text[: fence.start()])
        if marks is None:
            raise ValueError(f"line {line}: a block needs the mark <!-- run --> or <!-- not run: REASON --> above it")
        expected = re.findall(r"<!-- expect: (.*) -->", marks[2])
        file, reason = (marks[1].partition(mark)[2] for mark in ("file: ", "not run: "))
        blocks.append(Block(line, fence[1], fence[2], marks[1] == "run", expected, file, reason))
    marks = len(re.findall(r"<!-- (?:run|not run|file)", text))
    if marks != len(blocks):
        raise ValueError(f"{marks} marks, but {len(blocks)} blocks that directly follow one")
    return blocks


def the_block(text, language):
    (block,) = [block for block in all_blocks(text) if block.language == language]
    return block


def waiting_for_servers(code, default_address):
    """Commands, with a wait behind each that starts a server: until its last address answers."""

    def wait(line):
        listen = re.search(r".*--(?:http-)?listen (\S+):(\d+)", line[0]) or re.search(r"(.*):(.*)", default_address)
        return f"{line[0]}\n{_WAIT_FOR.format(listen[1], listen[2])}"

    return re.sub(r"^.* &$", wait, code, flags=re.MULTILINE)


def shell_script(pieces):
    """A script for bash that runs the pieces, each behind MARK, and ends what they started."""
    return _HEAD + "".join(f"printf '{MARK}'\n{piece}" for piece in pieces)


def write_files(page, folder):
    """Every file of the page at the path `page`, below `folder`."""
    for block in all_blocks(page.read_text()):
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)


if __name__ == "__main__":
    if sys.argv[1] == "files":
        write_files(*map(pathlib.Path, sys.argv[2:]))
        sys.exit()
    cpp = the_block(pathlib.Path(sys.argv[1]).read_text(), "cpp").code
    assert '"localhost:50051"' in cpp, "the C++ example calls another endpoint than the rest of README"
    pathlib.Path(sys.argv[2]).write_text(cpp.replace('"localhost:50051"', "endpoint"))
