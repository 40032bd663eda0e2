"""Proofs against the vectors of another implementation: what it accepts and refuses, we accept and refuse."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from jobledger.merkle import consistency_holds, inclusion_holds

# RFC 9162 says nothing of a tree without leaves. Theirs refuses it; a log that was seen empty is the same log to us.
EMPTY_BEFORE = "additional/size1-is-zero-and-size2-is-not-zero"

VECTORS = Path(__file__).parents[1] / "data" / "merkle_vectors"


def vectors(kind: str) -> list[Any]:
    found = json.loads((VECTORS / f"{kind}.json").read_text())
    assert len(found) == 98
    assert sum(not vector["wantErr"] for vector in found.values()) == 6
    return [pytest.param(vector, id=name) for name, vector in found.items()]


def hashes(vector: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(it) for it in vector["proof"] or ()]


def decoded(vector: dict[str, Any], name: str) -> bytes:
    return base64.b64decode(vector[name] or "")


@pytest.mark.parametrize("vector", vectors("inclusion"))
def test_inclusion(vector: dict[str, Any]) -> None:
    holds = inclusion_holds(
        hashed_leaf=decoded(vector, "leafHash"),
        index=vector["leafIdx"],
        size=vector["treeSize"],
        path=hashes(vector),
        root=decoded(vector, "root"),
    )
    assert holds is not vector["wantErr"]


@pytest.mark.parametrize("vector", vectors("consistency"))
def test_consistency(vector: dict[str, Any], request: pytest.FixtureRequest) -> None:
    holds = consistency_holds(
        old_size=vector["size1"],
        old_root=decoded(vector, "root1"),
        new_size=vector["size2"],
        new_root=decoded(vector, "root2"),
        path=hashes(vector),
    )
    assert holds is (EMPTY_BEFORE in request.node.name or not vector["wantErr"])
