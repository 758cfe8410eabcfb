"""Calls made as grpcurl makes them: what the server speaks is asked by reflection, messages are written as JSON."""

import json

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from attend_testing.stubs import reflection_pb2, reflection_pb2_grpc


def asker(channel):
    """A function from questions, as dicts, to the answers of reflection v1."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(*questions):
        requests = [reflection_pb2.ServerReflectionRequest(**question) for question in questions]
        return list(stub.ServerReflectionInfo(iter(requests), timeout=60))

    return ask


def reflected_pool(ask, symbol):
    """A descriptor pool that knows `symbol`, filled by reflection alone."""
    files, todo = {}, [{"file_containing_symbol": symbol}]
    while todo:
        (answer,) = ask(todo.pop())
        if not answer.HasField("file_descriptor_response"):
            raise AssertionError(f"reflection does not know it: {answer}")
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            files[file.name] = file
        missing = {name for file in files.values() for name in file.dependency} - files.keys()
        todo = [{"file_by_filename": name} for name in missing]
    pool = descriptor_pool.DescriptorPool()

    def add(name):
        if name in files:
            file = files.pop(name)
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    while files:
        add(next(iter(files)))
    return pool


def call_dynamically(channel, pool, path, request, metadata=()):
    """Calls `package.Service/Method` with `request` as JSON's dict; the answer as JSON's dict."""
    service, name = path.split("/")
    method = pool.FindServiceByName(service).FindMethodByName(name)
    factory = message_factory.MessageFactory(pool)
    request_class, response_class = factory.GetPrototype(method.input_type), factory.GetPrototype(method.output_type)
    call = channel.unary_unary(
        f"/{path}",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )
    message = json_format.ParseDict(request, request_class())
    return json.loads(json_format.MessageToJson(call(message, timeout=60, metadata=metadata)))
