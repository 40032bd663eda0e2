"""What may be named instead of being told, and by whom it is allowed."""

from pathlib import Path

import pytest
from jobledger.v1.job_pb2 import JobSpec
from jobledger_server.core.errors import Reason, ServiceError, name_of
from jobledger_server.core.secret_references import NO_SECRETS, AllowedSecrets, check_references, references
from jobledger_server.core.specs import resolve


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedSecrets:
    return AllowedSecrets.of(["API_TOKEN", str(tmp_path / "secrets"), str(tmp_path / "one.key")])


def refusal(value: str, allowed: AllowedSecrets) -> str:
    """The code of the error, whose message must name the variable."""
    with pytest.raises(ServiceError) as caught:
        check_references({"TOKEN": value}, allowed)
    assert "spec.env[TOKEN]" in caught.value.message
    return name_of(caught.value.reason)


def test_what_the_operator_allows_may_be_referred_to(allowed: AllowedSecrets, tmp_path: Path) -> None:
    """Files need not be there yet; a directory stands for all below it."""
    for reference in ("env:API_TOKEN", f"file:{tmp_path}/secrets/a/b", f"file:{tmp_path}/one.key"):
        check_references({"TOKEN": f"secret:{reference}"}, allowed)


@pytest.mark.parametrize("name", ["OTHER", "api_token", "API_TOKEN2", "PATH"])
def test_any_other_variable_is_forbidden(allowed: AllowedSecrets, name: str) -> None:
    assert refusal(f"secret:env:{name}", allowed) == "FORBIDDEN"


@pytest.mark.parametrize("path", ["/etc/passwd", "{tmp}/secrets2", "{tmp}/one.key2", "{tmp}"])
def test_any_other_file_is_not_allowed(allowed: AllowedSecrets, tmp_path: Path, path: str) -> None:
    assert refusal("secret:file:" + path.format(tmp=tmp_path), allowed) == "PATH_NOT_ALLOWED"


def test_no_way_leads_out_of_an_allowed_directory(allowed: AllowedSecrets, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "out").symlink_to("/etc")
    for path in ("../other", "out/passwd"):
        assert refusal(f"secret:file:{tmp_path}/secrets/{path}", allowed) == "PATH_TRAVERSAL"


def test_a_link_within_an_allowed_directory_is_followed(allowed: AllowedSecrets, tmp_path: Path) -> None:
    """As container platforms mount secrets."""
    (tmp_path / "secrets" / "..data").mkdir(parents=True)
    (tmp_path / "secrets" / "key").symlink_to("..data/key")
    check_references({"TOKEN": f"secret:file:{tmp_path}/secrets/key"}, allowed)


@pytest.mark.parametrize("value", ["secret:env:", "secret:env:A B", "secret:env:1A", "secret:file:", "secret:file:a"])
def test_a_misspelled_reference_is_an_error_and_no_value(allowed: AllowedSecrets, value: str) -> None:
    assert refusal(value, allowed) == "VALIDATION"


def test_nothing_is_allowed_by_default() -> None:
    assert refusal("secret:env:HOME", NO_SECRETS) == "FORBIDDEN"
    assert refusal("secret:file:/etc/hostname", NO_SECRETS) == "PATH_NOT_ALLOWED"


@pytest.mark.parametrize("value", ["secret", "secret:", "secret:vault:x", " secret:env:A", "Secret:env:A", "x"])
def test_what_is_no_reference_is_a_value_as_any_other(value: str) -> None:
    assert references({"A": value}) == {}
    check_references({"A": value}, NO_SECRETS)


def test_a_specification_is_held_against_what_is_allowed_also_where_it_is_repeated(allowed: AllowedSecrets) -> None:
    spec = JobSpec(command=["true"], env={"TOKEN": "secret:env:API_TOKEN"})
    resolved = resolve(spec, roots=[], secrets=allowed)
    assert dict(resolved.env) == {"TOKEN": "secret:env:API_TOKEN"}
    with pytest.raises(ServiceError) as caught:
        resolve(JobSpec(), roots=[], base=resolved)
    assert caught.value.reason == Reason.ERROR_REASON_FORBIDDEN


@pytest.mark.parametrize("item", ["", "a-b", "relative/path", "~/secrets", "A=b"])
def test_what_is_neither_variable_nor_path_can_not_be_allowed(item: str) -> None:
    with pytest.raises(ValueError, match="neither the name of a variable nor an absolute path"):
        AllowedSecrets.of([item])
