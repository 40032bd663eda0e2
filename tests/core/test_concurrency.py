"""Which limits a job counts against, and what they are."""

import pytest
from jobledger_server.core.concurrency import NO_LIMITS, ConcurrencyLimits
from support.records import a_record

LIMITS = ConcurrencyLimits(queues={"gpu": 2}, labels={"tenant": 3, "tenant=acme": 1, "zone=eu=west": 4, "a": 5})


def test_a_job_counts_for_its_queue_and_for_each_label_that_have_a_limit() -> None:
    job = a_record(queue="gpu", labels={"tenant": "initech", "a": "", "other": "x"}).job
    assert LIMITS.groups_of(job) == ("queue gpu", "label a=", "label tenant=initech")


def test_what_has_no_limit_is_not_counted() -> None:
    job = a_record(queue="gpu2", labels={"tenants": "acme", "zone": "eu", "gpu": "2"}).job
    assert LIMITS.groups_of(job) == ()
    assert NO_LIMITS.groups_of(a_record(queue="gpu", labels={"tenant": "acme"}).job) == ()


def test_a_limit_of_one_value_goes_before_that_of_its_label() -> None:
    assert LIMITS.most("label tenant=acme") == 1
    assert LIMITS.most("label tenant=initech") == 3
    assert LIMITS.most("queue gpu") == 2


def test_a_value_may_have_the_sign_that_divides_the_two() -> None:
    (group,) = LIMITS.groups_of(a_record(labels={"zone": "eu=west"}).job)
    assert (group, LIMITS.most(group)) == ("label zone=eu=west", 4)


@pytest.mark.parametrize("group", ["queue other", "label other=x", "label gpu", "queue tenant"])
def test_a_group_without_a_limit_is_an_error(group: str) -> None:
    with pytest.raises(KeyError):
        LIMITS.most(group)
