"""The OpenAPI 3.1 document, made of the very routes that are served."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from jobledger_gateway import dashboard_schemas
from jobledger_gateway.bodies import HTTP_BODY
from jobledger_gateway.comments import comments
from jobledger_gateway.dashboard import PREFIX
from jobledger_gateway.fields import message_of
from jobledger_gateway.framing import NDJSON, SSE
from jobledger_gateway.http_rule import ANY, ANY_DEPTH, Rule, resolve
from jobledger_gateway.request_schemas import RequestSchemas
from jobledger_gateway.routes import Route, response_rule
from jobledger_gateway.schemas import Schema, Schemas

JSON = "application/json"
ERROR = {"$ref": "#/components/responses/Error"}
DASHBOARD_ERROR = {"$ref": "#/components/responses/DashboardError"}

DESCRIPTION = """Jobs you can trust: submit, watch, cancel and read them, and keep a signed receipt of each.

Names are snake_case, enums short and lower case, times RFC 3339 in UTC, durations seconds such as `"1.5s"`. What is not
understood is refused, never ignored; null means unset. Every error is `{"error_code", "message", "details"}`."""

ERROR_SCHEMA: Schema = {
    "type": "object",
    "required": ["error_code", "message", "details"],
    "properties": {
        "error_code": {"type": "string", "description": "For programs, such as `E_JOB_NOT_FOUND`."},
        "message": {"type": "string", "description": "For people."},
        "details": {
            "type": "object",
            "description": "What else there is to say; `fields` for `E_VALIDATION`.",
            "properties": {
                "fields": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "description"],
                        "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
                    },
                }
            },
            "additionalProperties": True,
        },
    },
}


class Both:
    """Schemas of what is answered, and of what is asked."""

    def __init__(self) -> None:
        self.answers, self.requests = Schemas(), RequestSchemas()


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document for routes. The same routes give the same document."""
    schemas = Both()
    paths: dict[str, dict[str, Any]] = {}
    for route in sorted(routes, key=lambda route: (_path(route.rule), route.rule.method)):
        paths.setdefault(_path(route.rule), {})[route.rule.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Jobledger", "version": metadata.version("jobledger"), "description": DESCRIPTION},
        "security": [{"token": []}],
        "tags": _tags(routes),
        "paths": {**paths, **_pages()},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Error": _json("The request failed.", {"$ref": "#/components/schemas/Error"}),
                "DashboardError": _json("The request failed.", {"$ref": "#/components/schemas/DashboardError"}),
            },
            "schemas": {
                "Error": ERROR_SCHEMA,
                **dashboard_schemas.COMPONENTS,
                **dict(sorted((schemas.answers.components | schemas.requests.components).items())),
            },
        },
    }


def _tags(routes: Sequence[Route]) -> list[dict[str, str]]:
    services = {route.rule.rpc.containing_service.name: route.rule.rpc.containing_service for route in routes}
    tags = [{"name": name, "description": comments().get(found.full_name, "")} for name, found in services.items()]
    return [*tags, {"name": "Gateway", "description": "The gateway itself."}]


def _path(rule: Rule) -> str:
    """The path with a `{name}` for each wildcard; a variable of several has them numbered."""
    parts = list(rule.template.segments)
    for at, name in _wildcards(rule):
        parts[at] = f"{{{name}}}"
    verb = f":{rule.template.verb}" if rule.template.verb else ""
    return "/" + "/".join(parts) + verb


def _wildcards(rule: Rule) -> Iterator[tuple[int, str]]:
    for variable in rule.template.variables:
        covered = range(variable.start, variable.end or len(rule.template.segments))
        places = [at for at in covered if rule.template.segments[at] in {ANY, ANY_DEPTH}]
        name = ".".join(variable.field)
        for number, at in enumerate(places, start=1):
            yield at, name if len(places) == 1 else f"{name}_{number}"


def _operation(route: Route, schemas: Both) -> dict[str, Any]:
    rule, method = route.rule, route.rule.rpc
    text = comments().get(method.full_name, "")
    suffix = f"_{rule.index}" if rule.index else ""
    operation: dict[str, Any] = {
        "operationId": f"{method.containing_service.name}_{method.name}{suffix}",
        "tags": [method.containing_service.name],
        "summary": text.split(". ")[0].rstrip("."),
        "description": text,
        "parameters": [*_path_parameters(rule, schemas), *_query_parameters(route, schemas), *_headers(rule, schemas)],
        "responses": _responses(rule, schemas),
    }
    if rule.body:
        operation["requestBody"] = _request_body(rule, schemas)
    return operation


def _path_parameters(rule: Rule, schemas: Both) -> Iterator[dict[str, Any]]:
    fields = {".".join(v.field): resolve(rule.rpc.input_type, v.field) for v in rule.template.variables}
    for _, name in _wildcards(rule):
        field = fields.get(name) or fields[name.rpartition("_")[0]]
        yield {"name": name, "in": "path", "required": True, **_about(schemas.requests.path_value(field))}


def _query_parameters(route: Route, schemas: Both) -> Iterator[dict[str, Any]]:
    for name, parameter in route.binder.parameters.items():
        style = {"style": "form", "explode": not parameter.splits} if parameter.field.is_repeated else {}
        # With commas between them, no values are one empty value.
        least = {"minItems": 1} if parameter.splits else {}
        yield {"name": name, "in": "query", **style, **_about({**schemas.requests.value(parameter.field), **least})}


def _about(schema: Schema) -> dict[str, Any]:
    description = schema.pop("description", "")
    return {"description": description, "schema": schema}


def _headers(rule: Rule, schemas: Both) -> Iterator[dict[str, Any]]:
    answer = response_rule(rule.rpc)
    if answer.stream.resume_field:
        number = schemas.requests.value(resolve(rule.rpc.input_type, (answer.stream.resume_field,)))
        text = f"Number of the last event received; wins over `{answer.stream.resume_field}`."
        schema = {"minimum": 0, **_about(number)["schema"]}
        yield {"name": "Last-Event-ID", "in": "header", "description": text, "schema": schema}
    if answer.range.offset_field:
        text = "One range of bytes, such as `bytes=0-99` or `bytes=-100`."
        yield {"name": "Range", "in": "header", "description": text, "schema": {"type": "string"}}


def _request_body(rule: Rule, schemas: Both) -> dict[str, Any]:
    request = rule.rpc.input_type
    if rule.body == "*":
        schema = schemas.requests.object_of(
            request, without=[variable.field[0] for variable in rule.template.variables]
        )
    else:
        schema = schemas.requests.field(request.fields_by_name[rule.body])
    return {"required": "required" in schema, "content": {JSON: {"schema": schema}}}


def _responses(rule: Rule, schemas: Both) -> dict[str, Any]:
    method, answer = rule.rpc, response_rule(rule.rpc)
    view = dashboard_schemas.RESPONSES.get(method.full_name)
    if rule.template.segments[0] == PREFIX and view:
        return {**{str(status): _json(text, schema) for status, text, schema in view}, "default": DASHBOARD_ERROR}
    status = str(answer.success_status or 200)
    if method.output_type.full_name == HTTP_BODY:
        whole = {"description": "The bytes.", "content": {"*/*": {}}}
        part = {"206": {"description": "The part that was asked for.", "content": {"*/*": {}}}}
        return {status: whole, **(part if answer.range.offset_field else {}), "default": ERROR}
    if method.server_streaming:
        return {status: _stream(rule, schemas), "default": ERROR}
    text = comments().get(method.output_type.full_name, "Success.")
    return {status: _json(text, schemas.answers.reference(method.output_type)), "default": ERROR}


def _stream(rule: Rule, schemas: Both) -> dict[str, Any]:
    answer, message = response_rule(rule.rpc).stream, rule.rpc.output_type
    item = message_of(resolve(message, (answer.item_field,))) if answer.item_field else message
    schema = schemas.answers.reference(item)
    line = {"type": "object", "properties": {"result": schema, "end": {"type": "object"}, "error": ERROR_SCHEMA}}
    return {
        "description": "Events as they come; the schema is that of the data of one. The last is `end` or an error.",
        "content": {SSE: {"schema": schema}, NDJSON: {"schema": line}},
    }


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": dict(schema)}}}


def _pages() -> dict[str, Any]:
    """The endpoints that are not methods of a service."""
    status = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    ready = {"200": _json("It serves.", status), "503": _json("It does not serve.", status)}
    metrics = {"200": {"description": "Prometheus text.", "content": {"text/plain": {}}}, "default": ERROR}
    return {
        "/healthz": {"get": _page("Liveness", {"200": _json("The gateway lives.", status)}, public=True)},
        "/readyz": {"get": _page("Readiness", ready, public=True)},
        "/metrics": {"get": _page("Metrics", metrics, public=False)},
        "/v1/openapi.json": {
            "get": _page("This document", {"200": _json("OpenAPI.", {"type": "object"})}, public=True)
        },
    }


def _page(summary: str, responses: dict[str, Any], *, public: bool) -> dict[str, Any]:
    open_to_all: dict[str, Any] = {"security": []} if public else {}
    return {"summary": summary, "tags": ["Gateway"], "responses": responses, **open_to_all}
