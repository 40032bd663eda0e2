"""What the package offers to those who import it."""

import inspect
import subprocess
import sys

import jobledger
from jobledger.client import Client
from jobledger.sync_client import SyncClient


def test_public_names_are_sorted_and_all_exist() -> None:
    assert jobledger.__all__ == sorted(jobledger.__all__)
    assert all(getattr(jobledger, name) for name in jobledger.__all__)


def test_the_blocking_client_has_every_verb() -> None:
    def verbs(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}

    assert verbs(SyncClient) == verbs(Client)


def test_importing_the_package_does_not_load_grpc() -> None:
    """The stubs live in it too, and those who need only them must not pay for a client."""
    check = "import sys, jobledger, jobledger.v1.job_pb2; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
