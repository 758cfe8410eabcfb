"""Random subsets of the keys of a config.json, some of the values that are left changed too."""

import random

import alter

DROPPED, CHANGED = 0.4, 0.25  # How often a key that may be about attention is left out, and how often changed otherwise.


def _may_go(key):
    """Whether a model without the key still has the same tensors, or nearly so: sizes of what is no attention stay."""
    return key != "model_type" and not any(part in key for part in alter.NOT_ATTENTION)


def drawn(config, count, seed):
    """[({key: value} that differ, [keys left out])] of `count` random subsets; equal seeds draw equal ones.

    Parts within the configuration (`text_config`) stay whole.
    """
    source, found = random.Random(f"{seed} {config.get('model_type')}"), []
    keys = [key for key, value in config.items() if _may_go(key) and not (isinstance(value, dict) and key.endswith("_config"))]
    for _ in range(count):
        without = [key for key in keys if source.random() < DROPPED]
        others = {}
        for key in keys:
            values = alter.others(key, config[key])
            if key not in without and values and source.random() < CHANGED:
                others[key] = source.choice(values)
        found.append((others, without))
    return found


def applied(config, others, without):
    return {key: value for key, value in (config | others).items() if key not in without}
