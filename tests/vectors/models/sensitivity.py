"""Whether a case can fail: what each tensor of an attention module is worth, in tolerances."""

import copy

import torch

import capture
import judge
from in_double import MASKED, InDouble


def _rerun(attention, outside, inner):
    """(result, scores) of the module with the parameters that it has now, or of its last linear layer if `inner`."""
    seen, linear = [], []
    args, kwargs = copy.deepcopy((attention.args, attention.kwargs))
    leaves = [one for one in attention.module.modules() if capture.is_linear(one)] if inner else []
    handles = [one.register_forward_hook(lambda module, given, output: linear.append(output)) for one in leaves]
    with torch.no_grad(), InDouble(seen.append):
        output = capture.first_tensor(attention.module(*args, **kwargs))
        if outside is not None:
            output = outside(output)
    for handle in handles:
        handle.remove()
    return linear[-1] if inner else output, seen[0] if seen else None


def _without(name, parameter):
    if "sink" in name:
        return [torch.full_like(parameter, -1e9)]
    if parameter.dim() == 1 and not name.endswith("bias"):
        return [torch.ones_like(parameter), torch.zeros_like(parameter)]
    return [torch.zeros_like(parameter)]


def _only_shifts_rows(scores, before):
    """Whether scores moved, and each row by one number: softmax cannot see that, in any implementation."""
    if scores is None or before is None or scores.shape != before.shape:
        return False
    change = torch.where(before > MASKED, scores - before, torch.nan)
    spread = change.nan_to_num(-1e300).amax(-1) - change.nan_to_num(1e300).amin(-1)
    return bool(change.nan_to_num(0).abs().max() > 1e-3) and bool(spread.abs().max() < 1e-9)


def insensitive(attention, model, wanted):
    """[sentence] for each tensor whose removal changes the module's result by less than SENSITIVE tolerances."""
    outside = model.get_submodule(attention.projection) if wanted is attention.projected and attention.projected is not None else None
    inner = wanted is attention.inner and wanted is not attention.output
    allowed = judge.SENSITIVE * judge.tolerance(attention, wanted)
    again, scores = _rerun(attention, outside, inner)
    if again.shape != wanted.shape or float((again - wanted).abs().max()) > 1e-9 * float(wanted.abs().max()):
        return ["the module cannot be run again alone with the same result"]
    found = []
    # What norms the sum of the projection and the module's input is behind what is compared.
    behind = set(attention.tail[2].parameters()) if inner and attention.tail else set()
    parameters = [*attention.module.named_parameters(), *(outside.named_parameters(prefix="(projection)") if outside is not None else ())]
    for name, parameter in parameters:
        if parameter in behind:
            continue
        kept = parameter.detach().clone()
        effects = []
        for value in _without(name, kept):
            with torch.no_grad():
                parameter.copy_(value)
            result, moved = _rerun(attention, outside, inner)
            changed = float((result - wanted).abs().nan_to_num(1e300).max())
            effects.append(1e300 if changed < allowed and _only_shifts_rows(moved, scores) else changed)
        with torch.no_grad():
            parameter.copy_(kept)
        if min(effects) < allowed:
            found.append(f"{name} is worth {min(effects) / allowed * judge.SENSITIVE:.2g} tolerances")
    deviation = attention.deviation()
    if deviation is not None and deviation < 2.0:
        found.append(f"scores have a standard deviation of {deviation:.2g}")
    return found
