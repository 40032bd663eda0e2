"""Options in the sets of other services: numbers from 50000 on are everybody's own, and are nobody else's to read."""

from pathlib import Path

import jobledger.v1
import pytest
from gateway.foreign import compile_protos
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from jobledger_gateway.comments import comments_in
from jobledger_gateway.descriptors import services_in
from jobledger_gateway.encoding import json_rule
from jobledger_gateway.response_rules import response_rule

OWN_SET = Path(next(iter(jobledger.v1.__path__))) / "descriptors.binpb"
PROTO = """
syntax = "proto3";
package house.v1;
import "google/api/annotations.proto";
import "google/protobuf/descriptor.proto";
extend google.protobuf.%(extended)s { %(kind)s label = %(number)d; }
// A thing.
message Thing { string id = 1 %(on_field)s; }
service Things {
  rpc Get(Thing) returns (Thing) { %(on_method)s option (google.api.http) = {get: "/v1/{id}"}; }
}
"""


@pytest.mark.parametrize(
    ("extended", "kind", "number", "value"),
    [
        ("FieldOptions", "string", 50501, '"identifier"'),
        ("FieldOptions", "bool", 50501, "true"),
        # Read as Jobledger's, these are a rule that flattens, and a status of 3.
        ("FieldOptions", "bytes", 50501, r'"\x08\x01"'),
        ("MethodOptions", "bytes", 50500, r'"\x08\x03"'),
        ("MethodOptions", "string", 50500, '"team-a"'),
        ("MethodOptions", "string", 50502, '"admin"'),
    ],
)
def test_options_of_another_house_with_our_numbers_say_nothing(
    tmp_path: Path, extended: str, kind: str, number: int, value: str
) -> None:
    on_field = f"[(label) = {value}]" if extended == "FieldOptions" else ""
    on_method = f"option (label) = {value};" if extended == "MethodOptions" else ""
    values = {"extended": extended, "kind": kind, "number": number, "on_field": on_field, "on_method": on_method}
    (tmp_path / "house.proto").write_text(PROTO % values)
    more = ("--include_source_info",)
    data = compile_protos(tmp_path / "set.binpb", tmp_path / "house.proto", more=more).read_bytes()
    (service,) = services_in(data, name="house.proto")
    method = service.methods_by_name["Get"]
    assert not response_rule(method).ByteSize()
    assert not json_rule(method.input_type.fields_by_name["id"]).ByteSize()
    assert comments_in(data)["house.v1.Thing"] == "A thing."


def test_our_own_options_are_read_in_a_set_that_has_them() -> None:
    data = OWN_SET.read_bytes()
    assert "jobledger/v1/annotations.proto" in {file.name for file in FileDescriptorSet.FromString(data).file}
    services = {service.name: service for service in services_in(data, name="own")}
    assert response_rule(services["JobService"].methods_by_name["CreateJob"]).success_status == 201
