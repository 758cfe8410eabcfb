"""One model class: made, saved, asked, judged."""

import json
import os
import pathlib
import tempfile

import torch

import ask
import build
import judge
import keys
import packages
import sensitivity

torch.set_num_threads(1)
KEYS = os.environ.get("ATTEND_MODELS_KEYS", "1") == "1"  # Whether each key of config.json is changed too.
SIZES = json.loads((pathlib.Path(__file__).parent / "sizes.json").read_text())


def cases(line):
    """[{name, type, class}] of everything that the line's packages ship; class is empty where there is no model.

    First one class of each type, then the others: a sweep that was stopped has something to say of most types.
    """
    build.warm_up()
    if line == "packages":
        return packages.cases()
    found = []
    for model_type, classes in build.cases().items():
        found += [
            {"name": f"{model_type}.{one}", "type": model_type, "class": one, "rank": -rank}
            for rank, one in enumerate(classes, -len(classes))
        ]
        found += [] if classes else [{"name": model_type, "type": model_type, "class": "", "rank": 0}]
    return sorted(found, key=lambda case: case.pop("rank"))


def _source(case):
    if case.get("package"):
        return packages.source(case["package"], case["class"])
    return build.Transformers(case["type"], case["class"], SIZES.get(case["type"]))


def _save(source, model, directory):
    """Saves the model as float32, which its parameters are anyway; buffers (angles) keep their float64 numbers after that."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    file = source.save(model.float(), directory)
    model.double()
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return file


SEEDS = 3  # Draws of a model until each of its layers can tell.


def run(case):
    """The result of the first draw, with what others say of its layers that could not tell: a softmax that one key wins shows little."""
    result = _run(case, 0)
    for seed in range(1, SEEDS):
        blind = [index for index, one in enumerate(result["layers"]) if one["verdict"] == "insensitive"]
        if not blind:
            break
        again = {one["path"]: one for one in _run(case, seed)["layers"]}
        for index in blind:
            if (other := again.get(result["layers"][index]["path"])) is not None and other["verdict"] in ("right", "wrong"):
                result["layers"][index] = other | {"seed": seed, "group": result["layers"][index]["group"]}
    return result


def _run(case, seed):
    source = _source(case)
    model, found, failures = build.build(source, seed)
    with tempfile.TemporaryDirectory(prefix="attend-model-") as directory:
        saved = ask.Saved(directory, _save(source, model, directory))
        layers = judged(model, found, saved, source.supplied)
        right = [(found[one["path"]], one["prefix"], one["supplied"]) for one in layers if one["verdict"] == "right"]
        changed = keys.check(source, model, saved, right) if right and KEYS and not case.get("package") else {}
        config = pathlib.Path(directory) / "config.json"
        return {
            "layers": layers,
            "keys": changed,
            "failures": failures,
            "config": json.loads(config.read_text()) if config.exists() else None,
        }


def judged(model, found, saved, supplied):
    layers, names = {}, {}
    modules = [one.module for one in found.values()]
    for index, attention in enumerate(found.values()):
        names[attention.path] = []
        for up, prefix in enumerate(saved.prefixes(attention.module, modules)):
            name = f"{index}-{up}"
            layers[name] = (saved.file, prefix, supplied(attention.path))
            names[attention.path].append(name)
    if not layers:
        return [
            _entry(one, judge.Verdict("excluded", "its tensors are not in the file under the module's names")) for one in found.values()
        ]
    with ask.Asked(layers) as asked:
        return [_judge_one(asked, model, attention, names[attention.path], layers) for attention in found.values()]


def _judge_one(asked, model, attention, names, layers):
    served = [name for name in names if name not in asked.refused]
    if not names:
        return _entry(attention, judge.Verdict("excluded", "its tensors are not in the file under the module's names"))
    if not served:
        return _entry(attention, judge.Verdict("refused", asked.refused[names[0]]), refusals=[asked.refused[name] for name in names])
    verdicts = {name: judge.judge(asked, name, attention) for name in served}
    name = min(served, key=lambda one: ("wrong", "right", "excluded").index(verdicts[one].verdict))
    verdict, info = verdicts[name], asked.info(name)
    more = {"prefix": layers[name][1], "supplied": layers[name][2], "naming": info.naming, "served": info_text(info)}
    if verdict.verdict == "right":
        found = sensitivity.insensitive(attention, model, judge.target(attention, info.has_output_projection))
        more["insensitive"] = found
        if found:
            verdict.verdict, verdict.reason = "insensitive", "; ".join(found)
    return _entry(attention, verdict, **more)


def info_text(info):
    return " ".join(str(info.config).split())


def _entry(attention, verdict, **more):
    tokens = {name: list(tensor.shape) for name, tensor in attention.tensors().items()}
    return {
        "path": attention.path, "group": judge.group(attention), "module": type(attention.module).__name__, "verdict": verdict.verdict,
        "reason": verdict.reason, "error": verdict.error, "tolerance": verdict.tolerance, "deviation": attention.deviation(),
        "calls": attention.calls, "seen": judge.seen(attention), "inputs": tokens,
        "tensors": [name for name, _ in attention.module.named_parameters()] + ([attention.projection] if attention.projection else []),
    } | more  # fmt: skip
