"""Page tokens tell nothing, can't be changed, and fit only where they were made."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.core.errors import Reason, ServiceError
from jobledger_server.core.pages import PageTokens

PAGES = PageTokens(b"0123456789abcdef")
POSITION = (1_767_323_045_000_000, "job_01kdyzqz8800000000000000000")
BINDING = ["jobs", "state=running", "token"]


def refused(token: str, binding: list[object] | None = None, pages: PageTokens = PAGES) -> None:
    with pytest.raises(ServiceError) as caught:
        pages.open(token, BINDING if binding is None else binding)
    assert caught.value.reason == Reason.ERROR_REASON_VALIDATION
    assert [field.field for field in caught.value.fields] == ["page_token"]


@given(created_at=st.integers(0, 2**53), job_id=st.text(max_size=40), binding=st.lists(st.text()))
def test_a_token_opens_to_the_position_it_was_made_of(created_at: int, job_id: str, binding: list[str]) -> None:
    assert PAGES.open(PAGES.seal((created_at, job_id), binding), binding) == (created_at, job_id)


def test_the_same_page_has_the_same_token() -> None:
    assert PAGES.seal(POSITION, BINDING) == PageTokens(b"0123456789abcdef").seal(POSITION, BINDING)


def test_a_token_is_fit_for_a_url_and_tells_nothing() -> None:
    token = PAGES.seal(POSITION, BINDING)
    assert token.replace("-", "").replace("_", "").isalnum()
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert b"job_" not in raw
    assert b"1767323045" not in raw


@pytest.mark.parametrize("binding", [[], ["jobs", "state=running", "other"], ["jobs", "", "token"], ["live", "token"]])
def test_a_token_of_another_filter_or_caller_is_refused(binding: list[object]) -> None:
    refused(PAGES.seal(POSITION, BINDING), binding)


def test_parts_of_a_binding_do_not_run_into_each_other() -> None:
    refused(PAGES.seal(POSITION, ["a", "bc"]), ["ab", "c"])


def test_a_token_of_another_secret_is_refused() -> None:
    refused(PAGES.seal(POSITION, BINDING), pages=PageTokens(b"fedcba9876543210"))


def test_a_token_with_one_changed_character_is_refused() -> None:
    """The last character may carry spare bits; every other one counts."""
    token = PAGES.seal(POSITION, BINDING)
    for place in range(len(token) - 1):
        other = "A" if token[place] != "A" else "B"
        refused(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("change", ["{}!", "\n{}", " {}", "{}AAAA", "é{}", "{}\0"])
def test_a_token_with_something_added_is_refused(change: str) -> None:
    refused(change.format(PAGES.seal(POSITION, BINDING)))


@given(st.text(max_size=60))
def test_made_up_tokens_are_refused(token: str) -> None:
    refused(token)
