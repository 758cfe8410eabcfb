"""tests/vectors/MODELS.md, and the same in short for a terminal, from the sweep's JSON files.

Usage: report.py [--summary] [--head FILE --attend VERSION] [--check] LINE ...      LINE: the name of a folder in build/models
"""

import argparse
import collections
import json
import os
import pathlib
import re
import sys

OUTPUT = pathlib.Path(os.environ["ATTEND_MODELS_DIR"])
# [why an attention module is not softmax(scale Q K^T + mask) V of its input's projections, its class's name], from its source.
OTHER = [(why, re.compile(name)) for why, name in json.loads((pathlib.Path(__file__).parent / "other_attention.json").read_text())]
VERDICTS = ("wrong", "insensitive", "excluded", "refused", "right")  # A type is what its worst layer is.


def results(line):
    """Every case's result, in the order of the package's own list."""
    found = []
    for case in json.loads((OUTPUT / line / "_cases.json").read_text()):
        path = OUTPUT / line / f"{case['name']}.json"
        if not case["class"]:
            found.append(
                {
                    "case": case["name"],
                    "type": case["type"],
                    "class": "",
                    "excluded": "the package has no model class for this type",
                    "layers": [],
                }
            )
        elif path.exists():
            found.append(json.loads(path.read_text()))
    return found


def not_swept(line):
    cases = json.loads((OUTPUT / line / "_cases.json").read_text())
    return sum(bool(case["class"]) and not (OUTPUT / line / f"{case['name']}.json").exists() for case in cases)


def layers_of(result):
    """One of each kind of layer, the worst."""
    kinds = {}
    for layer in result["layers"]:
        kept = kinds.setdefault(layer["group"], layer)
        if VERDICTS.index(layer["verdict"]) < VERDICTS.index(kept["verdict"]):
            kinds[layer["group"]] = layer
    return list(kinds.values())


def wrong_keys(result):
    return [f"{key}: {verdict}" for key, verdict in result.get("keys", {}).items() if verdict.startswith(("wrong", "insensitive"))]


def by_type(found):
    """{type: [verdict, [layers], [reasons of exclusion], [keys that are wrong or insensitive]]}"""
    types = {}
    for result in found:
        _, layers, excluded, keys = types.setdefault(result["type"], [None, [], [], []])
        keys += wrong_keys(result)
        layers += layers_of(result)
        if result.get("excluded"):
            excluded.append(result["excluded"])
        elif not result["layers"]:
            excluded.append("no softmax attention was reached")
    for entry in types.values():
        verdicts = {layer["verdict"] for layer in entry[1]}
        entry[0] = next((verdict for verdict in VERDICTS if verdict in verdicts and verdict != "excluded"), "excluded")
        if entry[0] in ("right", "refused") and entry[3]:
            entry[0] = "wrong" if any(": wrong" in key for key in entry[3]) else "insensitive"
    return types


def _line(text, most=230):
    text = " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= most else text[: most - 1] + "…"


def _reasons(verdict, layers, excluded, keys):
    told = collections.Counter(_line(one["reason"]) for one in layers if one["verdict"] == verdict and one["reason"])
    if verdict == "excluded":
        told.update(_line(one["reason"]) for one in layers)
        told.update(map(_line, excluded))
    told.update(_line(f"key {key}") for key in keys[:4])
    return "; ".join(told)


def counts(layers):
    return collections.Counter(layer["verdict"] for layer in layers)


def other_attention(layer):
    """Why a layer that is refused is not plain softmax attention; empty for one that is."""
    return next((why for why, name in OTHER if layer["verdict"] == "refused" and name.fullmatch(layer["module"])), "")


def _numbers(counted):
    return ", ".join(f"{counted[verdict]} {verdict}" for verdict in reversed(VERDICTS))


def chapter(line):
    found = results(line)
    types = by_type(found)
    layers = [layer for result in found for layer in layers_of(result)]
    total = counts(layers)
    judged = sum(total.values()) - total["excluded"]
    others = collections.defaultdict(list)
    for layer in layers:
        if why := other_attention(layer):
            others[why].append(layer["module"])
    plain = judged - sum(map(len, others.values()))
    yield f"## {line}\n"
    if left := not_swept(line):
        yield f"Not swept yet: {left} further classes.\n"
    yield f"Model types: {len(types)}; by their worst layer: {_numbers(collections.Counter(entry[0] for entry in types.values()))}.  "
    yield f"Kinds of attention layers in {len(found)} classes: {sum(total.values())}; {_numbers(total)}"
    of_judged, of_plain = (100 * total["right"] / max(count, 1) for count in (judged, plain))
    yield f"(right: {of_judged:.0f} % of those that could be judged, {of_plain:.0f} %"
    yield f"of the {plain} with a plain softmax).\n"
    yield "Refused, and no plain softmax attention (tests/vectors/models/other_attention.json):\n"
    for why, modules in others.items():
        yield f"- {why}: {len(modules)} ({', '.join(sorted(set(modules)))})"
    yield ""
    yield "| model type | verdict | kinds of layers | reason |\n|---|---|---|---|"
    for name, (verdict, of_type, excluded, keys) in sorted(types.items()):
        if verdict != "excluded":
            kinds = ", ".join(f"{n} {v}" for v, n in counts(of_type).items())
            yield f"| {name} | {verdict} | {kinds} | {_reasons(verdict, of_type, excluded, keys)} |"
    yield "\nExcluded, which is no verdict on attend:\n"
    why = collections.defaultdict(list)
    for name, (verdict, of_type, excluded, keys) in sorted(types.items()):
        if verdict == "excluded":
            why[_reasons(verdict, of_type, excluded, keys)].append(name)
    for reason, names in sorted(why.items(), key=lambda one: -len(one[1])):
        yield f"- {reason}: {', '.join(names)}"
    yield ""


def summary(line):
    """Wrong layers first, with what attend believed and what the model did."""
    found = results(line)
    layers = [(result, layer) for result in found for layer in layers_of(result)]
    excluded = sum(bool(result.get("excluded")) for result in found)
    yield f"{line}: {_numbers(counts([layer for _, layer in layers]))}; {excluded} of {len(found)} classes excluded"
    for wanted in ("wrong", "insensitive", "refused"):
        for result, layer in layers:
            if layer["verdict"] == wanted:
                yield f"{wanted}: {result['case']} {layer['path']} ({layer['module']}): {layer['reason']}"
                if wanted == "wrong":
                    yield (f"    error {layer['error']:.2g}, allowed {layer['tolerance']:.2g}; model sees: {layer['seen']}; "
                           f"attend: {layer.get('naming')} {layer.get('served')}")
                    yield f"    prefix {layer.get('prefix')}; tensors {' '.join(layer['tensors'])}; inputs {layer['inputs']}"


    for result in found:
        for key in wrong_keys(result):
            yield f"key: {result['case']} {key}"


def versions(directory):
    """The packages that the sweep compares with, as the requirements name them."""
    text = " ".join(path.read_text() for path in sorted(directory.glob("transformers-*.txt")))
    wanted = r"\b(?:transformers|torch|timm|diffusers|sentence-transformers|openai-whisper)==[\w.]+"
    return sorted(set(re.findall(wanted, text)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--head", type=pathlib.Path)
    parser.add_argument("--attend", default="", help="what the server is, for the head")
    parser.add_argument("--check", action="store_true", help="exit with 1 when something is wrong or insensitive")
    parser.add_argument("lines", nargs="+")
    arguments = parser.parse_args()
    if arguments.head:
        print(arguments.head.read_text() + f"\nattend: {arguments.attend}. Packages: {', '.join(versions(arguments.head.parent))}.\n")
    for line in arguments.lines:
        print("\n".join(summary(line) if arguments.summary else chapter(line)))
    bad = [
        layer
        for line in arguments.lines
        for result in results(line)
        for layer in result["layers"]
        if layer["verdict"] in ("wrong", "insensitive")
    ]
    keys = [key for line in arguments.lines for result in results(line) for key in wrong_keys(result)]
    if arguments.check and (bad or keys):
        sys.exit(f"{len(bad)} layers and {len(keys)} keys are wrong or insensitive")


if __name__ == "__main__":
    main()
