"""The OpenAPI 3.1 document, made of the very routes that are served."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jobledger_gateway import dashboard_schemas
from jobledger_gateway.about import About, about_jobledger
from jobledger_gateway.bodies import HTTP_BODY, is_content, takes_one_object
from jobledger_gateway.dashboard import PREFIX
from jobledger_gateway.encoding import SINGLE_VALUE_TYPES
from jobledger_gateway.errors import RULES
from jobledger_gateway.fields import message_of
from jobledger_gateway.framing import NDJSON, SSE
from jobledger_gateway.http_rule import ANY, Rule, resolve
from jobledger_gateway.openapi_paths import GATEWAY, Names, Place, is_deep, places_of
from jobledger_gateway.request_schemas import RequestSchemas, must_be_given
from jobledger_gateway.response_rules import response_rule
from jobledger_gateway.routes import Route
from jobledger_gateway.schemas import Schema, Schemas

JSON = "application/json"
ETAG = {
    "ETag": {"description": "Changes with the answer; absent where that can't be told.", "schema": {"type": "string"}}
}
ANY_BYTES = "*/*"
# On a parameter that goes over segments, which OpenAPI has no word for.
MULTI_SEGMENT = "x-multi-segment"
SEGMENTS = (
    "Segments with slashes between them. The slashes go into the path as they are, and only the segments are "
    "percent-encoded: a slash that is sent as `%2F` stays that in the value."
)
PAGES = ("/healthz", "/readyz", "/metrics", "/v1/openapi.json")
ERROR = {"$ref": "#/components/responses/Error"}
DASHBOARD_ERROR = {"$ref": "#/components/responses/DashboardError"}

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
    """Schemas of what is answered, and of what is asked; and what operations are called."""

    def __init__(self, about: About, names: Names) -> None:
        self.texts, self.names = about.texts, names
        self.answers, self.requests = Schemas(about.texts, about.dialect), RequestSchemas(about.texts, about.dialect)


def document(routes: Sequence[Route], about: About | None = None, *, pages: Collection[str] = PAGES) -> dict[str, Any]:
    """The document for routes, of Jobledger's API unless it is said what else. The same routes give the same document.

    Methods of HTTP that OpenAPI has no word for are left out, and rules that it can't tell from another one: that one
    says so. `pages` are paths of the gateway's own that are served.
    """
    about = about or about_jobledger()
    names = Names(routes)
    schemas = Both(about, names)
    paths: dict[str, dict[str, Any]] = {}
    for place in places_of(routes):
        paths.setdefault(place.path, {})[place.method.lower()] = _operation(place, schemas)
    own = _pages(about)
    return {
        "openapi": "3.1.0",
        "info": {"title": about.title, "version": about.version, "description": about.description},
        # Of other services nobody can tell which methods need one.
        "security": [{"token": []}] if about.is_own else [{}, {"token": []}],
        "tags": _tags(names, about),
        "paths": {**paths, **{path: own[path] for path in own if path in pages}},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {name: _failed(name) for name in ("Error", *(["DashboardError"] if about.is_own else []))},
            "schemas": {
                "Error": ERROR_SCHEMA,
                **(dashboard_schemas.COMPONENTS if about.is_own else {}),
                **dict(sorted((schemas.answers.components | schemas.requests.components).items())),
            },
        },
    }


def _failed(name: str) -> dict[str, Any]:
    return _json("The request failed.", {"$ref": f"#/components/schemas/{name}"})


def _tags(names: Names, about: About) -> list[dict[str, str]]:
    tags = [
        {"name": names.tag(service), "description": about.texts.get(full_name, "")}
        for full_name, service in names.services.items()
    ]
    return [*tags, {"name": GATEWAY, "description": "The gateway itself."}]


def _operation(place: Place, schemas: Both) -> dict[str, Any]:
    route, rule = place.route, place.route.rule
    text = _text(rule, schemas)
    operation: dict[str, Any] = {
        "operationId": schemas.names.operation_id(place),
        "tags": [schemas.names.tag(rule.rpc.containing_service)],
        "summary": text.split(". ")[0].rstrip(".") or rule.rpc.name,
        "description": "\n\n".join(filter(None, [text, *_more(rule), *map(_left_out, place.left_out)])),
        "parameters": [*_path_parameters(place, schemas), *_query_parameters(route, schemas), *_headers(rule, schemas)],
        "responses": _responses(rule, schemas),
        **({"deprecated": True} if rule.rpc.GetOptions().deprecated else {}),
    }
    if rule.body:
        operation["requestBody"] = _request_body(rule, schemas)
    return operation


def _text(rule: Rule, schemas: Both) -> str:
    own = dashboard_schemas.TEXTS.get(rule.rpc.full_name) if _is_view(rule) else None
    return own or schemas.texts.get(rule.rpc.full_name, "")


def _more(rule: Rule) -> Iterator[str]:
    """What the document has no other place for."""
    if rule.method == ANY:
        yield "Answers every method alike, those too that stand nowhere here."
    if is_deep(rule) and len(rule.template.segments) > 1:
        yield "The path answers without its last parameter too, and without the slash before that."


def _left_out(rule: Rule) -> str:
    return (
        f"Paths that this one does not match go on to `{rule.rpc.full_name}` (`{rule.method} {rule.template.text}`), "
        "which OpenAPI can't tell from it: that one has no place of its own here."
    )


def _path_parameters(place: Place, schemas: Both) -> Iterator[dict[str, Any]]:
    rule = place.route.rule
    for number, (name, path) in enumerate(place.parameters, start=1):
        deep = is_deep(rule) and number == len(place.parameters)
        schema: Schema = {"type": "string"}
        if path:
            schema = schemas.requests.path_value(resolve(rule.rpc.input_type, path), deep=deep)
        about = _about(schema)
        if deep:
            about = {**about, "description": f"{about['description']}\n\n{SEGMENTS}".strip(), MULTI_SEGMENT: True}
        yield {"name": name, "in": "path", "required": True, **about}


def _query_parameters(route: Route, schemas: Both) -> Iterator[dict[str, Any]]:
    for name, parameter in route.binder.parameters.items():
        style = {"style": "form", "explode": not parameter.splits} if parameter.field.is_repeated else {}
        # With commas between them, no values are one empty value.
        least = {"minItems": 1} if parameter.splits else {}
        needed = {"required": True} if len(parameter.path) == 1 and must_be_given(parameter.field) else {}
        about = _about({**schemas.requests.value(parameter.field), **least})
        yield {"name": name, "in": "query", **needed, **style, **about}


def _about(schema: Schema) -> dict[str, Any]:
    description = schema.pop("description", "")
    return {"description": description, "schema": schema}


def _headers(rule: Rule, schemas: Both) -> Iterator[dict[str, Any]]:
    answer = response_rule(rule.rpc)
    if answer.stream.resume_field:
        number = schemas.requests.value(resolve(rule.rpc.input_type, (answer.stream.resume_field,)))
        text = f"The last `id` received, once and as a number; wins over `{answer.stream.resume_field}`."
        schema = {"minimum": 0, **_about(number)["schema"]}
        yield {"name": "Last-Event-ID", "in": "header", "description": text, "schema": schema}
    if answer.etag:
        text = "ETags of what the client has: if it is still the same, the answer is 304 without a body."
        yield {"name": "If-None-Match", "in": "header", "description": text, "schema": {"type": "string"}}
    if answer.range.offset_field:
        text = "One range of bytes, such as `bytes=0-99` or `bytes=-100`."
        yield {"name": "Range", "in": "header", "description": text, "schema": {"type": "string"}}


def _request_body(rule: Rule, schemas: Both) -> dict[str, Any]:
    request = rule.rpc.input_type
    if request.full_name == HTTP_BODY if rule.body == ANY else is_content(request.fields_by_name[rule.body]):
        return {"content": {ANY_BYTES: {}}}
    if rule.body == ANY and request.full_name in SINGLE_VALUE_TYPES:
        schema = schemas.requests.reference(request)
    elif rule.body == ANY:
        paths = [variable.field for variable in rule.template.variables]
        schema = schemas.requests.object_of(request, without=[path[0] for path in paths if len(path) == 1])
    elif takes_one_object(rule, schemas.requests.dialect):
        schema = schemas.requests.value(request.fields_by_name[rule.body])
    else:
        schema = schemas.requests.field(request.fields_by_name[rule.body])
    return {"required": "required" in schema, "content": {JSON: {"schema": schema}}}


def _responses(rule: Rule, schemas: Both) -> dict[str, Any]:
    method, answer = rule.rpc, response_rule(rule.rpc)
    view = dashboard_schemas.RESPONSES.get(method.full_name)
    if _is_view(rule) and view:
        return {**{str(status): _json(text, schema) for status, text, schema in view}, "default": DASHBOARD_ERROR}
    found = {str(answer.success_status or 200): _success(rule, schemas)}
    if answer.range.offset_field:
        found["206"] = {**_bytes(rule), "description": "The part that was asked for."}
    if answer.etag:
        found = {status: {**told, "headers": ETAG} for status, told in found.items()}
        found["304"] = {"description": "It is still what the client has: see If-None-Match.", "headers": ETAG}
    return {**found, **_errors(answer.error), "default": ERROR}


def _is_view(rule: Rule) -> bool:
    """Whether the operators' view answers."""
    return rule.template.segments[0] == PREFIX


def _bytes(rule: Rule) -> dict[str, Any]:
    kinds = list(response_rule(rule.rpc).media_type) or [ANY_BYTES]
    return {"description": "The bytes.", "content": {kind: {"schema": _schema_of(kind)} for kind in kinds}}


def _schema_of(media_type: str) -> Schema:
    if media_type == JSON or media_type.endswith("+json"):
        return {"type": "object", "additionalProperties": {}}
    return {"type": "string"} if media_type.startswith("text/") else {}


def _success(rule: Rule, schemas: Both) -> dict[str, Any]:
    method = rule.rpc
    part = method.output_type.fields_by_name[rule.response_body] if rule.response_body else None
    if method.output_type.full_name == HTTP_BODY if part is None else is_content(part):
        return _bytes(rule)
    if method.server_streaming:
        return _stream(rule, schemas)
    if part is not None:
        return _json("Success.", schemas.answers.part(part))
    text = schemas.texts.get(method.output_type.full_name, "Success.")
    return _json(text, schemas.answers.reference(method.output_type))


def _errors(reasons: Sequence[str]) -> dict[str, Any]:
    """Errors that a method has beside the general ones, by their status."""
    told: dict[str, list[str]] = {}
    for reason in reasons:
        text = f"`E_{reason}`: {RULES[reason].message}"
        told.setdefault(str(RULES[reason].http_status), []).append(text)
    return {status: _json(". ".join(texts), {"$ref": "#/components/schemas/Error"}) for status, texts in told.items()}


def _stream(rule: Rule, schemas: Both) -> dict[str, Any]:
    answer, message = response_rule(rule.rpc).stream, rule.rpc.output_type
    item = message_of(resolve(message, (answer.item_field,))) if answer.item_field else message
    part = message.fields_by_name[rule.response_body] if rule.response_body else None
    schema = schemas.answers.reference(item) if part is None else schemas.answers.part(part)
    markers = {"heartbeat": {"type": "object"}, "end": {"type": "object"}, "error": ERROR_SCHEMA}
    line = {"type": "object", "properties": {"result": schema, **markers}}
    return {
        "description": "Events as they come; the schema is that of the data of one. The last is `end` or an error. A"
        " reader that takes nothing for 30 s is cut off, without either: it resumes from the last number it has.",
        "content": {SSE: {"schema": schema}, NDJSON: {"schema": line}},
    }


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": dict(schema)}}}


def _pages(about: About) -> dict[str, Any]:
    """The endpoints that are not methods of a service."""
    status = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    ready = {"200": _json("It serves.", status), "503": _json("It does not serve.", status)}
    metrics = {"200": {"description": "Prometheus text.", "content": {"text/plain": {}}}, "default": ERROR}
    return {
        "/healthz": {"get": _page("Liveness", {"200": _json("The gateway lives.", status)}, public=True)},
        "/readyz": {"get": _page("Readiness", ready, public=True)},
        "/metrics": {"get": _page("Metrics", metrics, public=not about.is_own)},
        "/v1/openapi.json": {
            "get": _page("This document", {"200": _json("OpenAPI.", {"type": "object"})}, public=True)
        },
    }


def _page(summary: str, responses: dict[str, Any], *, public: bool) -> dict[str, Any]:
    open_to_all: dict[str, Any] = {"security": []} if public else {}
    return {"summary": summary, "tags": [GATEWAY], "responses": responses, **open_to_all}
