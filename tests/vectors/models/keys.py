"""Each key of the configuration changed alone, and random subsets of the keys: attend must follow the model, or refuse."""

import json
import os
import pathlib
import tempfile

import alter
import ask
import build
import judge
import subsets

SUBSETS, DRAWS = 4, 16  # Of one model; most draws leave out a size, so that the parameters do not fit.


def _altered_model(source, config, state, seed):
    """{path: Attention} of a model with `config` and the parameters `state`; None when they do not fit or it does not run."""
    try:
        model = source.make(config)
        fits = model.load_state_dict(state, strict=False)
        if fits.missing_keys or fits.unexpected_keys:
            return None
        return build.watched(source, model, seed)[0].found or None
    except Exception:
        return None


def _alterations(config):
    """(name, altered configuration); the names of subsets begin with `subset`."""
    yield from alter.alterations(config)
    for others, without in subsets.drawn(config, DRAWS, 0):
        changes = ", ".join([f"without {key}" for key in without] + [f"{key}={value!s}" for key, value in others.items()])
        yield f"subset: {changes}", subsets.applied(config, others, without)


def _one_of_each(right):
    kinds = {}
    for attention, prefix, supplied in right:
        kinds.setdefault(judge.group(attention), (attention.path, prefix, supplied))
    return list(kinds.values())


def check(source, model, saved, right, seed=0):
    """{key: verdict} for `right`, [(Attention, prefix, supplied)] of layers that are right as they are.

    A key is `wrong` when attend serves the altered file and differs from the altered model, `insensitive` when attend
    applies it (the layer is another) and the result is the same within SENSITIVE tolerances.
    """
    kinds, state = _one_of_each(right), model.state_dict()
    config = ask.read_config(saved.file.parent)
    models, layers = {}, {f"base-{i}": (saved.file, prefix, supplied) for i, (_, prefix, supplied) in enumerate(kinds)}
    with tempfile.TemporaryDirectory(prefix="attend-keys-") as directory:
        fitting = 0
        for number, (key, altered) in enumerate(_alterations(config)):
            is_subset = key.startswith("subset")
            found = None if is_subset and fitting == SUBSETS else _altered_model(source, altered, state, seed)
            if found is None:
                continue
            fitting += is_subset
            folder = pathlib.Path(directory) / str(number)
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(altered))
            os.symlink(saved.file, folder / saved.file.name)
            models[number] = (key, found)
            file = folder / saved.file.name
            layers |= {f"{number}-{i}": (file, prefix, supplied) for i, (_, prefix, supplied) in enumerate(kinds)}
        with ask.Asked(layers) as asked:
            verdicts = {key: _verdict(asked, number, found, kinds) for number, (key, found) in models.items()}
    # Whether a key matters is asked of one key at a time: several together may go beyond what so few tokens show.
    return {key: "right" if key.startswith("subset") and one.startswith("insensitive") else one for key, one in verdicts.items()}


def _verdict(asked, number, found, kinds):
    told = []
    for i, (path, _, _) in enumerate(kinds):
        name, base = f"{number}-{i}", f"base-{i}"
        if name in asked.refused:
            told.append(f"refused: {asked.refused[name]}")
            continue
        if path not in found:
            continue
        verdict = judge.judge(asked, name, found[path])
        if verdict.verdict != "right":
            error = f"error {verdict.error:.2g} of {verdict.tolerance:.2g}"
            told.append(f"wrong: {path}: {verdict.reason}, {error}; model sees {judge.seen(found[path])}")
        elif asked.info(name).config != asked.info(base).config:
            as_before = judge.judge(asked, base, found[path])
            if as_before.error < judge.SENSITIVE * as_before.tolerance:
                told.append(f"insensitive: {path}: {as_before.error:.2g} of {as_before.tolerance:.2g}")
            else:
                told.append("right")
        else:
            told.append("same")
    return next((one for kind in ("wrong", "insensitive", "refused", "right") for one in told if one.startswith(kind)), "same")
