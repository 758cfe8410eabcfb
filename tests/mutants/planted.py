"""Faults that a list names, each a line of the product in place of another; off_by_one.toml is such a list."""

import re
import tomllib

import mutations


def read(path):
    """[(file, line, mutated line)]."""
    return [(entry["file"], entry["line"], entry["mutated"]) for entry in tomllib.loads(path.read_text())["mutant"]]


def places(text, line, mutated):
    """The mutations that put `mutated` in place of `line`: one for each place that the line has in the file."""
    found = []
    for match in re.finditer(r"^[ \t]*(\S.*?)[ \t]*$", text, re.M):
        if " ".join(match[1].split()) == " ".join(line.split()):
            found.append(mutations.Mutation(match.start(1), match.end(1), mutated, "planted"))
    return found


def find(texts, entries):
    """([(file, text, mutation)], the entries that are no longer in the code) of {file: text}."""
    found, missing = [], []
    for entry in entries:
        file, line, mutated = entry
        of_entry = [(file, texts[file], one) for one in places(texts.get(file, ""), line, mutated)]
        found += of_entry
        missing += [] if of_entry else [entry]
    return found, missing
