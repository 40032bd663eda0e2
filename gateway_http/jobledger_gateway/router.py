"""Finds the route of a request: literals before `*` before `**`, with backtracking that includes the HTTP method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from jobledger_gateway.errors import GatewayError, problem
from jobledger_gateway.http_rule import ANY, ANY_DEPTH, RESERVED, RuleError, Template

T = TypeVar("T")

# What stands for all methods, where they must be listed.
USUAL = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


@dataclass(slots=True)
class Node(Generic[T]):
    """A place in the trie of segments. `ends` holds, by verb and method, the routes that end here."""

    literals: dict[str, "Node[T]"] = field(default_factory=dict)
    wildcards: dict[str, "Node[T]"] = field(default_factory=dict)
    ends: dict[str, dict[str, T]] = field(default_factory=dict)

    def child(self, segment: str) -> "Node[T]":
        """The place that a segment of a template leads to, made on first use."""
        branch = self.wildcards if segment in {ANY, ANY_DEPTH} else self.literals
        return branch.setdefault(segment, Node())


class Router(Generic[T]):
    """Routes by path template and HTTP method. Matching is on raw segments: nothing is decoded before it is placed."""

    def __init__(self) -> None:
        self._root: Node[T] = Node()

    def add(self, method: str, template: Template, route: T) -> None:
        """Adds a route.

        Raises:
            RuleError: another route answers the very same requests.
        """
        node = self._root
        for segment in template.segments:
            node = node.child(segment)
        routes = node.ends.setdefault(template.verb, {})
        if method in routes:
            raise RuleError(f"{method} {template.text} is the path of another rule too ({routes[method]})")
        routes[method] = route

    def find(self, method: str, segments: Sequence[str]) -> T:
        """The route for a method and the raw segments of a path.

        Raises:
            GatewayError: `NOT_FOUND`, or `METHOD_NOT_ALLOWED` with `Allow`.
        """
        allowed: set[str] = set()
        for routes in self._ends(segments):
            found = _choose(routes, method)
            if found is not None:
                return found
            allowed.update(routes)
        if not allowed:
            raise GatewayError(problem("NOT_FOUND"))
        raise GatewayError(problem("METHOD_NOT_ALLOWED", headers={"Allow": ", ".join(_listed(allowed))}))

    def allowed(self, segments: Sequence[str]) -> list[str]:
        """The methods that a path takes, sorted; empty where there is no such path."""
        methods = {method for routes in self._ends(segments) for method in routes}
        return _listed(methods) if methods else []

    def _ends(self, segments: Sequence[str]) -> Iterator[Mapping[str, T]]:
        """What a path can mean, best first. A verb that is known there is a verb, never part of a value."""
        if not all(segments):
            return
        base, colon, verb = segments[-1].rpartition(":")
        if colon and base and verb:
            with_verb = list(_walk(self._root, [*segments[:-1], base], 0, verb))
            if with_verb:
                yield from with_verb
                return
        yield from _walk(self._root, segments, 0, "")


def _walk(node: Node[T], segments: Sequence[str], at: int, verb: str) -> Iterator[Mapping[str, T]]:
    if at == len(segments):
        if verb in node.ends:
            yield node.ends[verb]
    else:
        for child in (node.literals.get(segments[at]), node.wildcards.get(ANY)):
            if child is not None:
                yield from _walk(child, segments, at + 1, verb)
    rest = node.wildcards.get(ANY_DEPTH)
    if rest is not None and verb in rest.ends:
        yield rest.ends[verb]


def _choose(routes: Mapping[str, T], method: str) -> T | None:
    found = routes.get(method)
    if found is None and method == "HEAD":
        found = routes.get("GET")
    return routes.get(ANY) if found is None and method not in RESERVED else found


def _listed(methods: set[str]) -> list[str]:
    more = {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()) | (USUAL if ANY in methods else set())
    return sorted((methods | more) - {ANY})
