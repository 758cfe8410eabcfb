"""Another implementation of attention as a process beside attend-core-run, for peers.py.

    build/venv/bin/python tests/bench/peer_worker.py torch --threads 1

Takes attend-core-run's commands on standard input, one JSON object a line, and answers in the same way. Tensors are
read and brought into the implementation's form before the clock starts; its results are not converted within it.
"""

import argparse
import json
import statistics
import sys
import time
import warnings

import numpy as np


class Tensors:
    """What a command names: query, key, value [heads, tokens, dim] or [tokens, heads * dim], and the mask."""

    def __init__(self, command):
        self.command = command
        self.heads = command.get("heads", 1)
        self.kv_heads = command.get("kv_heads", self.heads)
        self.tokens, self.dim = command["tokens"], command["dim"]
        self.query = self._read("query", self.heads)
        self.key, self.value = self._read("key", self.kv_heads), self._read("value", self.kv_heads)
        self.causal, self.weights = command.get("causal", False), command.get("weights", False)
        self.window_left = command.get("window_left")

    def _read(self, name, heads):
        flat = np.fromfile(self.command[name], "<f4" if self.command.get("type", "float32") == "float32" else "<u2")
        merged = self.command.get("merged", False)
        return flat.reshape((self.tokens, heads * self.dim) if merged else (heads, self.tokens, self.dim))

    def mask(self):
        """[tokens, tokens] of bool, of mask, causality and window together; None when each key is visible."""
        if "mask" not in self.command and self.window_left is None:
            return None
        mask = np.ones((self.tokens, self.tokens), bool)
        if "mask" in self.command:
            mask &= np.fromfile(self.command["mask"], bool).reshape(mask.shape)
        if self.causal:
            mask &= np.tri(*mask.shape, dtype=bool)
        if self.window_left is not None:
            mask &= ~np.tri(*mask.shape, k=-self.window_left - 1, dtype=bool)
        return mask


def torch_run(tensors, threads):
    """F.scaled_dot_product_attention; with weights, the three steps that PyTorch takes for them."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    query, key, value = (torch.from_numpy(x)[None] for x in (tensors.query, tensors.key, tensors.value))
    if tensors.command.get("type") == "bfloat16":
        query, key, value = (x.view(torch.bfloat16) for x in (query, key, value))
    mask = tensors.mask()
    mask = None if mask is None else torch.from_numpy(mask)
    grouped = tensors.kv_heads != tensors.heads

    def fused():
        causal = tensors.causal and mask is None
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped)

    def with_weights():
        weights = torch.softmax(torch.baddbmm(zero, scaled, transposed, beta=0), dim=-1)
        return torch.bmm(weights, value[0]), weights.mean(0)

    if not tensors.weights:
        return (lambda: fused()[0].view(torch.uint16)) if query.dtype == torch.bfloat16 else (lambda: fused()[0].numpy())
    assert mask is None and not tensors.causal and not grouped
    scaled, transposed, zero = query[0] * tensors.dim**-0.5, key[0].transpose(1, 2), torch.zeros(1)
    return lambda: with_weights()[0].numpy()


def onnxruntime_run(tensors, threads):
    """MultiHeadAttention, or GroupQueryAttention where heads share keys or a window limits them."""
    import onnx
    import onnxruntime

    grouped = tensors.kv_heads != tensors.heads or tensors.window_left is not None
    feeds = {name: getattr(tensors, name)[None] for name in ("query", "key", "value")}
    attributes = {"num_heads": tensors.heads}
    if grouped:
        assert tensors.causal and "mask" not in tensors.command
        attributes |= {"kv_num_heads": tensors.kv_heads}
        if tensors.window_left is not None:
            attributes["local_window_size"] = tensors.window_left + 1
        names = ["query", "key", "value", "", "", "lengths", "total"]
        feeds |= {"lengths": np.array([tensors.tokens - 1], np.int32), "total": np.array([tensors.tokens], np.int32)}
        outputs = ["output", "present_key", "present_value"]
    else:
        names, outputs = ["query", "key", "value"], ["output"]
        if tensors.causal:
            attributes["unidirectional"] = 1
        if (mask := tensors.mask()) is not None:
            names += ["", "", "bias"]
            feeds["bias"] = np.where(mask, np.float32(0), np.float32(-np.inf))[None, None]
    operator = "GroupQueryAttention" if grouped else "MultiHeadAttention"
    node = onnx.helper.make_node(operator, names, outputs, domain="com.microsoft", **attributes)

    def info(name, array):
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    results = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    graph = onnx.helper.make_graph([node], "attention", [info(*feed) for feed in feeds.items()], results)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name in outputs:
        binding.bind_output(name)

    def run():
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return run


def numpy_run(tensors, threads):
    """The formula, written with care for memory. Its threads are set by peers.py in the environment."""
    del threads
    scaled = tensors.query * np.float32(tensors.dim**-0.5)
    key, value = tensors.key, tensors.value
    mask = tensors.mask()
    if mask is None and tensors.causal:
        mask = np.tri(tensors.tokens, dtype=bool)

    def run():
        scores = np.matmul(scaled, key.transpose(0, 2, 1))
        if mask is not None:
            np.copyto(scores, -np.inf, where=~mask)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        if tensors.weights:
            scores /= total
            scores.mean(axis=0)
            return np.matmul(scores, value)
        output = np.matmul(scores, value)
        output /= total
        return output

    return run


_RUNS = {"torch": torch_run, "onnxruntime": onnxruntime_run, "numpy": numpy_run}


def measure(command, run):
    """The median milliseconds of the command's repeats, after one that does not count, and the last result."""
    run()
    times = []
    for _ in range(command["repeats"]):
        start = time.perf_counter()
        result = run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=_RUNS)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*not writable.*")
    command, run = None, None
    for line in sys.stdin:
        asked = json.loads(line)
        if asked != command:
            command, run = asked, _RUNS[options.peer](Tensors(asked), options.threads)
        milliseconds, result = measure(command, run)
        if "output" in command:
            array = result.numpy() if hasattr(result, "numpy") else result
            np.ascontiguousarray(array).tofile(command["output"])
        print(json.dumps({"ms": milliseconds}), flush=True)


if __name__ == "__main__":
    main()
