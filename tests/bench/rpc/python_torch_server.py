#!/usr/bin/env python3
"""What a team writes when it needs attention behind gRPC today: Python, grpcio and PyTorch, on attend's own contract.

It is the baseline of rpc_bench.py, so it is no straw man: tensors are read without a copy, PyTorch computes without
recording gradients, in its fused kernel when weights are not asked for, with as many threads as it has cores.

    build/venv/bin/python tests/bench/rpc/python_torch_server.py --stubs build/release/generated/python --port-file FILE

Serves Attend with embeddings [T, D] or [B, T, D] and a layer with one head or none, options left at their defaults; returns
output and, if asked, attention weights. Checks nothing.
"""

import argparse
import asyncio
import os
import pathlib
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import torch


def make_attend(pb):
    """The method, given the generated classes."""

    def to_torch(tensor):
        return torch.from_numpy(np.frombuffer(tensor.data, np.float32).reshape(tuple(tensor.shape)))

    def set_tensor(tensor, values):
        tensor.data_type = 1  # FLOAT32
        tensor.shape.extend(values.shape)
        tensor.data = values.numpy().tobytes()

    def project(x, linear):
        bias = to_torch(linear.bias) if linear.HasField("bias") else None
        return torch.nn.functional.linear(x, to_torch(linear.weight), bias)

    def attend(request, _context):
        with torch.inference_mode():
            x = to_torch(request.embeddings)
            context = to_torch(request.context) if request.HasField("context") else x
            query, key, value = x, context, context
            if request.HasField("layer"):
                query = project(x, request.layer.query_projection)
                key = project(context, request.layer.key_projection)
                value = project(context, request.layer.value_projection)
            response = pb.AttendResponse()
            if pb.OUTPUT_KIND_ATTENTION_WEIGHTS in request.outputs:
                weights = torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, dim=-1)
                set_tensor(response.attention_weights, weights)
                output = weights @ value
            else:
                output = fused(query, key, value)
            if request.layer.HasField("output_projection"):
                output = project(output, request.layer.output_projection)
            set_tensor(response.output, output)
            return response

    def fused(query, key, value):
        # The fused kernel wants batch and head axes.
        axes = (None,) * (4 - query.ndim)
        output = torch.nn.functional.scaled_dot_product_attention(query[axes], key[axes], value[axes])
        return output.reshape(*query.shape[:-1], value.shape[-1])

    return attend


def handlers(pb, method):
    handler = grpc.unary_unary_rpc_method_handler(
        method, request_deserializer=pb.AttendRequest.FromString, response_serializer=pb.AttendResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler("attend.v1.AttentionService", {"Attend": handler})


def write_port(path, port):
    """Under another name first: whoever waits for the file never reads half a number."""
    path.with_suffix(".tmp").write_text(f"{port}\n")
    path.with_suffix(".tmp").rename(path)


OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def serve_threads(pb, options):
    server = grpc.server(ThreadPoolExecutor(options.workers), options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(pb, make_attend(pb)),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    write_port(options.port_file, port)
    server.wait_for_termination()


async def serve_asyncio(pb, options):
    attend = make_attend(pb)

    async def method(request, context):
        return attend(request, context)

    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(pb, method),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    write_port(options.port_file, port)
    await server.wait_for_termination()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stubs", required=True, help="the directory with the generated attend/v1/*_pb2.py")
    parser.add_argument("--port-file", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=4, help="threads that serve; 0: asyncio on one thread")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*not writable.*")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.path.insert(0, options.stubs)
    from attend.v1 import attention_service_pb2 as pb

    if options.workers:
        serve_threads(pb, options)
    else:
        asyncio.run(serve_asyncio(pb, options))


if __name__ == "__main__":
    main()
