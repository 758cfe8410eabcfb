"""Parameters that matter: norms that are not 1, biases that are not 0, scores that are not alike."""

import torch

SCORES = (2.0, 5.0)  # What the standard deviation of a layer's scores must be: below, softmax is near a mean.


def _is_norm(name, parameter):
    return parameter.dim() == 1 and name.endswith(("weight", "gamma", "scale"))


def redraw(model, seed):
    """Draws every parameter anew, as numbers that float32 holds. Weights that share memory stay shared."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        numbers = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if _is_norm(name, parameter):
            # A norm that multiplies by 1 + weight starts at 0.
            numbers = numbers * 0.3 + (0.2 if parameter.numel() and bool((parameter == 0).all()) else 1)
        elif parameter.dim() >= 2:
            fan_in = parameter.numel() // parameter.shape[0] if "Conv1D" not in type(model).__name__ else parameter.shape[0]
            numbers = numbers * 1.3 / max(fan_in, 1) ** 0.5
            if "embed" in name:
                numbers = numbers * max(fan_in, 1) ** 0.5
        else:
            numbers = numbers * 0.5
        with torch.no_grad():
            parameter.copy_(numbers.float().double())


def rescale(modules, deviations):
    """Moves the scores of attention modules towards SCORES. Returns whether anything was left to move."""
    moved = False
    for module, deviation in zip(modules, deviations, strict=True):
        if deviation is None or not deviation > 0 or SCORES[0] <= deviation <= SCORES[1]:
            continue
        moved = True
        factor = min(max((3.0 / deviation) ** 0.5, 0.05), 20.0)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                # Biases move with the weights that they are added to: they would not be seen beside larger ones.
                if parameter.dim() >= 2 or _is_norm(name, parameter) or name.endswith("bias"):
                    parameter.copy_((parameter * factor).float().double())
    return moved
