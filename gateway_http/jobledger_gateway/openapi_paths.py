"""Where routes stand in an OpenAPI document, and what they are called there: each path, operation and tag but once."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.descriptor import ServiceDescriptor

from jobledger_gateway.http_rule import ANY, ANY_DEPTH, Rule
from jobledger_gateway.routes import Route

# What a path of OpenAPI 3.1 may have: no other methods, nor one that stands for all.
METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"})
# What a rule for all methods stands under: a HEAD is the GET of the same path, as for every rule.
LISTED = ("GET", "PUT", "POST", "DELETE", "PATCH")
# A wildcard that sets no field, in a path.
UNNAMED = "any"
# The tag of what is no method of a service.
GATEWAY = "Gateway"


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A segment of a path that can be anything: which one, its name, and the field it sets, if it sets one."""

    at: int
    name: str
    field: tuple[str, ...]


@dataclass(slots=True)
class Place:
    """A route in the document.

    Attributes:
        path: with `{name}` for each wildcard; names are the same in every path of its shape.
        method: the rule's, or one of those that a rule for all of them stands under.
        parameters: those names, each with the field that it sets.
        left_out: rules that the same path and method would stand for, and that are asked after this one.
    """

    path: str
    method: str
    parameters: Sequence[tuple[str, tuple[str, ...]]]
    route: Route
    left_out: list[Rule] = field(default_factory=list)


def places_of(routes: Sequence[Route]) -> list[Place]:
    """The routes that OpenAPI can say, by path and method.

    It has one kind of wildcard, and paths that differ in the names of theirs are the same one to it.
    """
    shapes: dict[tuple[str, ...], list[Route]] = {}
    for route in routes:
        if methods_of(route.rule):
            shapes.setdefault(_shape(route.rule), []).append(route)
    places = [place for alike in shapes.values() for place in _places(alike)]
    return sorted(places, key=lambda place: (place.path, place.method))


def methods_of(rule: Rule) -> Sequence[str]:
    """The methods that a rule stands under; none where OpenAPI has no word for its own."""
    if rule.method == ANY:
        # A GET with a body is what no program can send by OpenAPI.
        return LISTED[1:] if rule.body else LISTED
    return [rule.method] if rule.method in METHODS else []


def _places(alike: Sequence[Route]) -> Iterator[Place]:
    """The places of routes of one shape. Of two with the same method the narrower one is asked first.

    Of two as narrow it is the one that names its method: it leaves nothing of that to a rule for all.
    """
    ordered = sorted(alike, key=lambda route: (is_deep(route.rule), route.rule.method == ANY))
    first = ordered[0].rule
    names = _without_dots([wildcard.name for wildcard in _wildcards(first)])
    path = _path(first, names)
    found: dict[str, Place] = {}
    for route in ordered:
        fields = [wildcard.field for wildcard in _wildcards(route.rule)]
        for method in methods_of(route.rule):
            place = Place(path, method, list(zip(names, fields, strict=True)), route)
            kept = found.setdefault(method, place)
            if is_deep(route.rule) and not is_deep(kept.route.rule):
                kept.left_out.append(route.rule)
    yield from found.values()


def is_deep(rule: Rule) -> bool:
    """Whether a path of the rule may go on for any number of segments."""
    return rule.template.segments[-1] == ANY_DEPTH


def _without_dots(names: Sequence[str]) -> Sequence[str]:
    """Names that programs take which would look for the part of an object behind a dot."""
    plain = [name.replace(".", "_") for name in names]
    return plain if len(set(plain)) == len(plain) else names


def _shape(rule: Rule) -> tuple[str, ...]:
    segments = ("{}" if segment in {ANY, ANY_DEPTH} else segment for segment in rule.template.segments)
    return (*segments, f":{rule.template.verb}")


def _path(rule: Rule, names: Sequence[str]) -> str:
    parts = list(rule.template.segments)
    for wildcard, name in zip(_wildcards(rule), names, strict=True):
        parts[wildcard.at] = f"{{{name}}}"
    verb = f":{rule.template.verb}" if rule.template.verb else ""
    return "/" + "/".join(parts) + verb


def _wildcards(rule: Rule) -> list[Wildcard]:
    """In the order of the path; those of a variable of several are numbered, and so are those of none."""
    free = [at for at, segment in enumerate(rule.template.segments) if segment in {ANY, ANY_DEPTH}]
    found: list[Wildcard] = []
    for variable in rule.template.variables:
        covered = range(variable.start, variable.end or len(rule.template.segments))
        places = [at for at in covered if at in free]
        free = [at for at in free if at not in covered]
        name = ".".join(variable.field)
        for number, at in enumerate(places, start=1):
            found.append(Wildcard(at, name if len(places) == 1 else f"{name}_{number}", variable.field))
    found += [Wildcard(at, f"{UNNAMED}_{number}", ()) for number, at in enumerate(free, start=1)]
    return sorted(found, key=lambda wildcard: wildcard.at)


class Names:
    """Tags of services and ids of operations: as short as they can be with no two alike."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.services: Mapping[str, ServiceDescriptor] = {
            route.rule.rpc.containing_service.full_name: route.rule.rpc.containing_service for route in routes
        }
        self._alike = Counter([GATEWAY, *(service.name for service in self.services.values())])
        self._ids: dict[tuple[str, int, str], str] = {}
        for route in routes:
            for method in methods_of(route.rule):
                key = (route.rule.rpc.full_name, route.rule.index, method)
                self._ids.setdefault(key, self._free_id(route.rule, method))

    def tag(self, service: ServiceDescriptor) -> str:
        """The name of a service; with its package where there is another of the name."""
        return service.name if self._alike[service.name] == 1 else service.full_name

    def operation_id(self, place: Place) -> str:
        """Service and method, a number for a binding beside the first, and which one of all methods it is."""
        rule = place.route.rule
        return self._ids[rule.rpc.full_name, rule.index, place.method]

    def _free_id(self, rule: Rule, method: str) -> str:
        service = self.tag(rule.rpc.containing_service).replace(".", "_")
        suffix = (f"_{rule.index}" if rule.index else "") + (f"_{method.lower()}" if rule.method == ANY else "")
        made = f"{service}_{rule.rpc.name}{suffix}"
        while made in self._ids.values():
            made += "_"
        return made
