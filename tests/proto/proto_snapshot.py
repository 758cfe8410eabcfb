"""What of the API may never change, as lines of text, and a comparison that says what a change breaks.

A line reads `KEY = VALUE`: the key is what clients depend on (a field's message and number, say), the value what it
must stay. Lines may be added, never altered or removed. After an addition, freeze it too:

    /usr/bin/python3 tests/proto/proto_snapshot.py > tests/proto/attend_v1.snapshot.txt
"""

from google.protobuf import descriptor_pb2

import proto_files
import proto_style

_Field = descriptor_pb2.FieldDescriptorProto


def _field_type(message, field):
    label = "repeated " if field.label == _Field.LABEL_REPEATED else "optional " if field.proto3_optional else ""
    name = field.type_name.removeprefix(".") or _Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    in_oneof = field.HasField("oneof_index") and not field.proto3_optional
    return label + name + (f" in oneof {message.oneof_decl[field.oneof_index].name}" if in_oneof else "")


def _message_facts(name, message, file_name):
    yield f"message {name}", f"in {file_name}"
    for field in message.field:
        yield f"field {name} #{field.number}", f"{field.name}: {_field_type(message, field)}"
    for reserved in message.reserved_range:
        for number in range(reserved.start, reserved.end):
            yield f"field {name} #{number}", "reserved"
    for reserved in message.reserved_name:
        yield f"field name {name} {reserved}", "reserved"


def _enum_facts(name, enum, file_name):
    yield f"enum {name}", f"in {file_name}"
    for value in enum.value:
        yield f"enum value {name} #{value.number}", value.name
    for reserved in enum.reserved_range:
        for number in range(reserved.start, reserved.end + 1):
            yield f"enum value {name} #{number}", "reserved"


def _service_facts(name, service, file_name):
    yield f"service {name}", f"in {file_name}"
    for method in service.method:
        asks = ("stream " if method.client_streaming else "") + method.input_type.removeprefix(".")
        answers = ("stream " if method.server_streaming else "") + method.output_type.removeprefix(".")
        yield f"method {name}.{method.name}", f"({asks}) returns ({answers})"


def facts(files):
    """{key: value} of everything that clients of `files` may depend on."""
    found = {}
    for file in files:
        for name, _, message in proto_style.messages(file):
            found.update(_message_facts(name, message, file.name))
        for name, _, enum in proto_style.enums(file):
            found.update(_enum_facts(name, enum, file.name))
        for name, _, service in proto_style.services(file):
            found.update(_service_facts(name, service, file.name))
    return found


def to_text(found):
    return "".join(f"{key} = {value}\n" for key, value in sorted(found.items()))


def from_text(text):
    return dict(line.split(" = ", 1) for line in text.splitlines() if line)


def breaking_changes(frozen, current):
    """One sentence for every frozen fact that no longer holds."""
    for key, value in sorted(frozen.items()):
        if current.get(key) == value:
            continue
        if key in current:
            yield f"{key} was `{value}` and is now `{current[key]}`"
            continue
        owner = key.rsplit(" #", 1)[0] if " #" in key else None
        moved = [k for k, v in current.items() if owner and k.rsplit(" #", 1)[0] == owner and v == value]
        yield f"{key} (`{value}`) was " + (f"renumbered to {moved[0].rsplit(' ', 1)[1]}" if moved else "removed")


def repository_facts():
    return facts([file for file in proto_files.repository_protos() if file.package.startswith("attend.")])


if __name__ == "__main__":
    print(to_text(repository_facts()), end="")
