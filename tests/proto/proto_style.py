"""The style rules of the project's .proto files, as functions from descriptors to sentences about violations.

They follow buf's STANDARD and COMMENTS categories, which `make lint` asks buf itself about, and Google's AIP-141 (types),
AIP-192 (comments) and AIP-203 (Required, Optional), which buf does not know.
"""

import re

from google.protobuf import descriptor_pb2

_File = descriptor_pb2.FileDescriptorProto
_Message = descriptor_pb2.DescriptorProto
_Enum = descriptor_pb2.EnumDescriptorProto
_Service = descriptor_pb2.ServiceDescriptorProto

LOWER_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")


def upper_snake(pascal):
    """CausalMode -> CAUSAL_MODE."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", pascal).upper()


def messages(file):
    """(full name, path in the descriptor, message) of every message, nested ones too; map entries are no messages."""

    def walk(prefix, path, number, found):
        for index, message in enumerate(found):
            if message.options.map_entry:
                continue
            name, here = f"{prefix}.{message.name}", (*path, number, index)
            yield name, here, message
            yield from walk(name, here, _Message.NESTED_TYPE_FIELD_NUMBER, message.nested_type)

    yield from walk(file.package, (), _File.MESSAGE_TYPE_FIELD_NUMBER, file.message_type)


def enums(file):
    """(full name, path, enum) of every enum, nested ones too."""
    for index, enum in enumerate(file.enum_type):
        yield f"{file.package}.{enum.name}", (_File.ENUM_TYPE_FIELD_NUMBER, index), enum
    for name, path, message in messages(file):
        for index, enum in enumerate(message.enum_type):
            yield f"{name}.{enum.name}", (*path, _Message.ENUM_TYPE_FIELD_NUMBER, index), enum


def services(file):
    for index, service in enumerate(file.service):
        yield f"{file.package}.{service.name}", (_File.SERVICE_FIELD_NUMBER, index), service


def elements(file):
    """(kind, full name, path) of everything that needs a comment."""
    for name, path, message in messages(file):
        yield "message", name, path
        for index, field in enumerate(message.field):
            yield "field", f"{name}.{field.name}", (*path, _Message.FIELD_FIELD_NUMBER, index)
        for index, oneof in enumerate(message.oneof_decl):
            if not _is_synthetic(message, index):
                yield "oneof", f"{name}.{oneof.name}", (*path, _Message.ONEOF_DECL_FIELD_NUMBER, index)
    for name, path, enum in enums(file):
        yield "enum", name, path
        for index, value in enumerate(enum.value):
            yield "enum value", f"{name}.{value.name}", (*path, _Enum.VALUE_FIELD_NUMBER, index)
    for name, path, service in services(file):
        yield "service", name, path
        for index, method in enumerate(service.method):
            yield "method", f"{name}.{method.name}", (*path, _Service.METHOD_FIELD_NUMBER, index)


def _is_synthetic(message, oneof_index):
    """Whether the oneof is only how the compiler writes down `optional`."""
    return any(field.proto3_optional and field.oneof_index == oneof_index for field in message.field)


def leading_comments(file):
    """{path: comment, with newlines and runs of blanks as single blanks}."""
    return {
        tuple(location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments
    }


def check_package(files):
    """The package is the directory; ours end in a version; files are named in lower_snake_case."""
    for file in files:
        directory, _, base = file.name.rpartition("/")
        if file.package != directory.replace("/", "."):
            yield f"{file.name}: package {file.package} is not the directory {directory}"
        if file.package.startswith("attend") and not re.search(r"\.v[0-9]+((alpha|beta)[0-9]+)?$", file.package):
            yield f"{file.name}: package {file.package} does not end in a version such as v1"
        if not LOWER_SNAKE.fullmatch(base.removesuffix(".proto")) or re.fullmatch(r"v[0-9]+\.proto", base):
            yield f"{file.name}: a file is named in lower_snake_case after what it holds"


def check_names(files):
    """Case of every name; services end in Service; no `async` in names."""
    for file in files:
        for name, _, message in messages(file):
            if not PASCAL.fullmatch(message.name):
                yield f"message {name}: not in PascalCase"
            for field in message.field:
                if not LOWER_SNAKE.fullmatch(field.name):
                    yield f"field {name}.{field.name}: not in lower_snake_case"
        for name, _, service in services(file):
            if not PASCAL.fullmatch(service.name) or not service.name.endswith("Service"):
                yield f"service {name}: not in PascalCase ending in Service"
            for method in service.method:
                if not PASCAL.fullmatch(method.name) or "Async" in method.name:
                    yield f"method {name}.{method.name}: not in PascalCase, or says Async"


def check_enums(files):
    """PascalCase enums; UPPER_SNAKE_CASE values with the enum's name in front; zero is _UNSPECIFIED; no aliases."""
    for file in files:
        for name, _, enum in enums(file):
            prefix = upper_snake(enum.name) + "_"
            if not PASCAL.fullmatch(enum.name):
                yield f"enum {name}: not in PascalCase"
            if enum.options.allow_alias:
                yield f"enum {name}: allows aliases"
            for value in enum.value:
                if not UPPER_SNAKE.fullmatch(value.name) or not value.name.startswith(prefix):
                    yield f"enum value {name}.{value.name}: not in UPPER_SNAKE_CASE starting with {prefix}"
                if (value.number == 0) != (value.name == prefix + "UNSPECIFIED"):
                    yield f"enum value {name}.{value.name} = {value.number}: zero, and only zero, is {prefix}UNSPECIFIED"


def check_methods(files):
    """Method M takes MRequest and returns MResponse of its own package; neither is used by another method."""
    users = {}
    for file in files:
        for name, _, service in services(file):
            for method in service.method:
                full = f"{name}.{method.name}"
                for used, suffix in ((method.input_type, "Request"), (method.output_type, "Response")):
                    if used != f".{file.package}.{method.name}{suffix}":
                        yield f"method {full}: uses {used} where {method.name}{suffix} is expected"
                    if users.setdefault(used, full) != full:
                        yield f"method {full}: shares {used} with {users[used]}"


def check_comments(files):
    """Every element has a leading comment, a sentence: a capital first, a period last. None hides behind a line."""
    for file in files:
        comments = leading_comments(file)
        for kind, name, path in elements(file):
            comment = comments.get(path, "")
            if not comment:
                yield f"{kind} {name}: has no leading comment"
            elif not comment[0].isupper():
                yield f"{kind} {name}: comment does not begin with a capital: {comment[:40]!r}"
            elif not comment.endswith("."):
                yield f"{kind} {name}: comment does not end with a period: {comment[-40:]!r}"
        for location in file.source_code_info.location:
            if location.trailing_comments:
                yield f"{file.name}: trailing comment {location.trailing_comments.strip()!r}; comments go before"


def _reachable(roots, by_name):
    found, todo = set(), list(roots)
    while todo:
        name = todo.pop()
        if name in found or name not in by_name:
            continue
        found.add(name)
        todo += [field.type_name.removeprefix(".") for field in by_name[name].field]
    return found


def check_field_behavior(files):
    """Fields of requests, and of messages that only requests hold, begin with `Required.` or `Optional.`."""
    by_name = {name: message for file in files for name, _, message in messages(file)}
    methods = [method for file in files for service in file.service for method in service.method]
    asked = _reachable([method.input_type.removeprefix(".") for method in methods], by_name)
    answered = _reachable([method.output_type.removeprefix(".") for method in methods], by_name)
    for file in files:
        comments = leading_comments(file)
        for name, path, message in messages(file):
            if name not in asked or name in answered:
                continue
            for index, field in enumerate(message.field):
                comment = comments.get((*path, _Message.FIELD_FIELD_NUMBER, index), "")
                if not comment.startswith(("Required. ", "Optional. ")):
                    yield f"field {name}.{field.name}: comment begins with neither `Required.` nor `Optional.`"


def check_types(files):
    """No unsigned integers (AIP-141): some languages have none."""
    field_type = descriptor_pb2.FieldDescriptorProto
    unsigned = {field_type.TYPE_UINT32, field_type.TYPE_UINT64, field_type.TYPE_FIXED32, field_type.TYPE_FIXED64}
    for file in files:
        for name, _, message in messages(file):
            for field in message.field:
                if field.type in unsigned:
                    yield f"field {name}.{field.name}: unsigned"


RULES = (check_package, check_names, check_enums, check_methods, check_comments, check_field_behavior, check_types)


def violations(files):
    """Everything that is wrong with `files`, one sentence each."""
    return [violation for rule in RULES for violation in rule(files)]
