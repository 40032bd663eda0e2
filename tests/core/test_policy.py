"""Who may call what: a rule for every RPC, and none by accident."""

import pytest
from jobledger_server.core import policy
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.policy import (
    SCOPES,
    SERVICES,
    Principal,
    has_rule,
    is_open,
    require,
    require_any,
    scopes_by_method,
)


def a_principal(*scopes: str, workspaces: frozenset[str] | None = None) -> Principal:
    return Principal(token_id="token", scopes=frozenset(scopes), workspaces=workspaces)


def test_every_service_of_the_package_is_known() -> None:
    assert {service.name for service in SERVICES} == {"JobService", "ReceiptService", "EngineService"}


def test_every_rpc_has_an_access_rule_with_a_scope_that_exists() -> None:
    methods = [method for service in SERVICES for method in service.methods]
    assert [method.full_name for method in methods if not has_rule(method)] == []
    rules = scopes_by_method()
    for method in methods:
        assert rules[f"/{method.containing_service.full_name}/{method.name}"] in ("", *SCOPES)


def test_what_a_token_asks_about_its_own_rights_needs_no_one_scope() -> None:
    """Job types are for those who create jobs and for those who read them: the use case holds that."""
    assert {method for method, scope in scopes_by_method().items() if not scope} == {
        "/jobledger.v1.JobService/ListJobTypes",
        "/jobledger.v1.EngineService/WhoAmI",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }


@pytest.mark.parametrize("verb", ["CreateToken", "ListTokens", "RevokeToken", "RotateToken", "CollectGarbage"])
def test_tokens_and_garbage_are_for_administrators(verb: str) -> None:
    assert scopes_by_method()[f"/jobledger.v1.EngineService/{verb}"] == "admin"


def test_what_changes_a_job_takes_more_than_reading() -> None:
    needed = {
        method.rpartition("/")[2]: scope
        for method, scope in scopes_by_method().items()
        if method.startswith("/jobledger.v1.JobService/") and scope not in ("jobs:read", "")
    }
    assert needed == {
        "CreateJob": "jobs:create",
        "SendInput": "jobs:create",
        "CancelJob": "jobs:cancel",
        "CancelJobs": "jobs:cancel",
        "DeleteJob": "admin",
    }


def test_only_health_is_open() -> None:
    assert is_open("/grpc.health.v1.Health/Check")
    assert is_open("/grpc.health.v1.Health/Watch")
    for method in (*scopes_by_method(), "", "/grpc.health.v1.Healthy/Check", "grpc.health.v1.Health/Check"):
        assert not is_open(method), method


def test_a_scope_admits_to_itself_alone() -> None:
    for scope in set(SCOPES) - {"admin"}:
        assert {other for other in SCOPES if a_principal(scope).may(other)} == {scope}


def test_an_administrator_may_all_but_work() -> None:
    assert {scope for scope in SCOPES if a_principal("admin").may(scope)} == set(SCOPES) - {"worker"}


def test_no_scope_is_needed_where_none_is_asked() -> None:
    assert a_principal().may("")


def test_a_missing_scope_is_named() -> None:
    with pytest.raises(ServiceError, match="jobs:cancel") as caught:
        require(a_principal("jobs:read"), "jobs:cancel")
    assert caught.value.reason == Reason.ERROR_REASON_FORBIDDEN
    assert caught.value.metadata == {"scope": "jobs:cancel"}


def test_one_of_several_scopes_is_enough() -> None:
    for scope in ("jobs:create", "jobs:read", "admin"):
        require_any(a_principal(scope), "jobs:create", "jobs:read")
    with pytest.raises(ServiceError, match="jobs:create"):
        require_any(a_principal("jobs:cancel", "worker"), "jobs:create", "jobs:read")


def test_a_bound_principal_sees_its_workspaces_alone() -> None:
    bound = a_principal(workspaces=frozenset({"red"}))
    assert bound.sees("red")
    assert not bound.sees("blue")
    assert not bound.sees("")
    assert a_principal().sees("blue")


def test_a_principal_bound_to_no_workspace_sees_nothing() -> None:
    assert not a_principal(workspaces=frozenset()).sees("default")


def test_the_names_of_other_services_are_those_that_run() -> None:
    from grpc_health.v1 import health
    from grpc_reflection.v1alpha import reflection

    assert policy.HEALTH == health.SERVICE_NAME
    assert policy.REFLECTION == reflection.SERVICE_NAME
