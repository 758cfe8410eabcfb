"""Records what transformers makes of random subsets of the keys of config.json, for tests that have no transformers.

Usage: record.py FILE [--only REGEX]      FILE: tests/data/config_subsets.json

Draws subsets of the installed version's own configurations, one for each model type of formats/hugging_face/model_rules.cc,
and keeps them in FILE in place of those that this version drew before. What it makes of all subsets in FILE that older versions
drew is added. So run it with transformers 4 first, and then with 5: files of 5 are not meant for 4. See record.sh.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import sys

import torch
import transformers

import build
import resolved
import shrink
import subsets

HERE = pathlib.Path(__file__).parent
RULES = HERE.parents[2] / "formats" / "hugging_face" / "model_rules.cc"
SIZES = json.loads((HERE / "sizes.json").read_text())
COUNT, SECONDS, BYTES = 4, 120, 6 << 30  # Subsets of one type; processor time and memory of one type's process.
VERSION = transformers.__version__.split(".")[0]
_OF_NO_INTEREST = ("transformers_version", "architectures", "torch_dtype", "dtype", "id2label", "label2id", "time_step_limit")


def model_types():
    rows = re.findall(r'\{((?:\s*"[^"]*")+),\s*MaskRule::', RULES.read_text())
    return sorted({word for row in rows for text in re.findall(r'"([^"]*)"', row) for word in text.split()})


def _base(model_type):
    """The type's own configuration, with small sizes, and without what every configuration has."""
    usual = transformers.PretrainedConfig().to_dict()
    small = shrink.shrink(transformers.CONFIG_MAPPING[model_type]().to_dict(), sizes=SIZES.get(model_type))
    plain = {key: value for key, value in small.items() if key not in _OF_NO_INTEREST and usual.get(key, "none") != value}
    return json.loads(json.dumps(plain | {"model_type": model_type}))


def _rounded(value):
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _layers(source, config):
    """{prefix: settings} of each kind of layer; empty for a configuration of which no model can be made or called."""
    with contextlib.suppress(Exception):
        found = resolved.settings(source, json.loads(json.dumps(config)))
        found = {path: {name: _rounded(value) for name, value in one.items()} for path, one in found.items()}
        return {f"{path}.": one for path, one in resolved.kinds(found).items()}
    return {}


def _of_type(model_type, class_name, older):
    """What FILE has of a type: [{"written_by", "base", "cases"}]."""
    source = build.Transformers(model_type, class_name, SIZES.get(model_type))
    for group in older:
        for case in group["cases"]:
            layers = _layers(source, subsets.applied(group["base"], case["with"], case["without"]))
            same = next((versions for versions, one in case["layers"].items() if one == layers), None)
            if same is None:
                case["layers"][VERSION] = layers
            else:
                case["layers"][f"{same} {VERSION}"] = case["layers"].pop(same)
    base, cases = _base(model_type), []
    for others, without in [({}, []), *subsets.drawn(base, 3 * COUNT, 0)]:
        if len(cases) == COUNT:
            break
        if layers := _layers(source, subsets.applied(base, others, without)):
            cases.append({"with": others, "without": without, "layers": {VERSION: layers}})  # The versions that agree: "4 5".
    return older + ([{"written_by": VERSION, "base": base, "cases": cases}] if cases else [])


def _in_a_process(model_type, class_name, older):
    """A type's part of FILE, or the reason why there is none. Its own process: a model may need more memory than there is."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        try:
            result = _of_type(model_type, class_name, older)
        except Exception as error:
            result = f"{type(error).__name__}: {str(error)[:120]}"
        with os.fdopen(writing, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else "the process ended"


def _written(data):
    """One line for each subset."""
    lines = []
    for model_type, groups in sorted(data["types"].items()):
        texts = []
        for group in groups:
            cases = ",\n".join("    " + json.dumps(case, separators=(",", ":")) for case in group["cases"])
            head = json.dumps({"written_by": group["written_by"], "base": group["base"]}, separators=(",", ":"))
            texts.append(f'{head[:-1]},"cases":[\n{cases}]}}')
        lines.append(f"  {json.dumps(model_type)}: [{', '.join(texts)}]")
    left_out = json.dumps(data["left_out"], indent=1, sort_keys=True)
    types = ",\n".join(lines)
    return f'{{"versions": {json.dumps(data["versions"])},\n "left_out": {left_out},\n "types": {{\n{types}}}}}\n'


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    build.warm_up()
    data = json.loads(arguments.file.read_text()) if arguments.file.exists() else {"versions": {}, "left_out": {}, "types": {}}
    data["versions"][VERSION] = transformers.__version__
    classes = build.cases()
    for model_type in model_types():
        if not re.search(arguments.only, model_type):
            continue
        older = [group for group in data["types"].get(model_type, []) if int(group["written_by"]) < int(VERSION)]
        result = f"transformers {VERSION} has no model of this type alone"
        if classes.get(model_type):
            result = _in_a_process(model_type, classes[model_type][0], older)
        if isinstance(result, list) and result:
            data["types"][model_type] = result
            data["left_out"].pop(model_type, None)
        elif model_type not in data["types"]:
            data["left_out"][model_type] = result or f"no configuration of it could be made and called with transformers {VERSION}"
        print(model_type, result if isinstance(result, str) else [len(group["cases"]) for group in result], flush=True)
    for model_type in [one for one in data["types"] if one not in model_types()]:
        del data["types"][model_type]
    arguments.file.write_text(_written(data))


if __name__ == "__main__":
    sys.exit(main())
