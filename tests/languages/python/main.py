"""Calls a server with attend's generated code, and reads its error with the classes that Python has of google.rpc."""

import sys

import grpc
from attend.v1 import attention_service_pb2 as pb
from attend.v1 import attention_service_pb2_grpc as pb_grpc
from attend.v1 import tensor_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def tensor(rows, columns):
    return tensor_pb2.Tensor(shape=[rows, columns], values=range(rows * columns))


def main(address):
    with grpc.insecure_channel(address) as channel:
        stub = pb_grpc.AttentionServiceStub(channel)
        request = pb.ScaledDotProductAttentionRequest(query=tensor(1, 2), key=tensor(1, 2), value=tensor(1, 2))
        print("output", len(stub.ScaledDotProductAttention(request, timeout=60).output.values))
        request.key.CopyFrom(tensor(1, 3))
        try:
            stub.ScaledDotProductAttention(request, timeout=60)
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
    print("code", status.code)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(info):
            print("reason", info.reason, info.domain)
        if detail.Unpack(bad):
            print("field", bad.field_violations[0].field)


main(sys.argv[1])
