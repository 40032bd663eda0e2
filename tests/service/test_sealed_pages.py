"""Pages that are kept are those that can't change, and no more of them than there is room for."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from jobledger.v1.job_pb2 import Job
from jobledger_server.core.times import timestamp
from jobledger_server.joblog.reader import LogQuery
from jobledger_server.service import sealed_pages
from jobledger_server.service.sealed_pages import SealedPages, page_etag

JOB = Job(job_id="job")


def test_the_page_that_nobody_asked_for_the_longest_goes_first() -> None:
    page = b"x" * 100
    pages = SealedPages(most_bytes=200)
    pages.put("one", page)
    pages.put("two", page)
    assert pages.get("one") is page
    pages.put("three", page)
    assert [pages.get(name) is page for name in ("one", "two", "three")] == [True, False, True]


def test_a_page_larger_than_all_the_room_is_not_kept() -> None:
    pages = SealedPages(most_bytes=50)
    pages.put("large", b"x" * 100)
    pages.put("small", b"x")
    assert pages.get("large") is None
    assert pages.get("small") == b"x"


def test_a_page_put_again_counts_once() -> None:
    pages = SealedPages(most_bytes=2)
    for _ in range(5):
        pages.put("one", b"x")
    pages.put("two", b"y")
    assert (pages.get("one"), pages.get("two")) == (b"x", b"y")


def test_every_part_of_a_query_is_in_the_tag(tmp_path: Path) -> None:
    query = LogQuery()
    others = [
        replace(query, offset=1),
        replace(query, limit=1),
        replace(query, levels=frozenset({4})),
        replace(query, subsystem=""),
        replace(query, since=1),
        replace(query, until=1),
        replace(query, contains=""),
        replace(query, descending=True),
        replace(query, after_sequence=0),
        replace(query, max_bytes=1),
    ]
    assert len(LogQuery.__dataclass_fields__) == len(others)
    tags = {page_etag(JOB, tmp_path, it) for it in [query, *others]} | {page_etag(Job(job_id="jobs"), tmp_path, query)}
    assert len(tags) == len(others) + 2


def test_levels_have_no_order_in_the_tag(tmp_path: Path) -> None:
    tags = {page_etag(JOB, tmp_path, LogQuery(levels=frozenset(order))) for order in ([1, 2, 5], [5, 2, 1])}
    assert len(tags) == 1


def test_a_file_that_is_changed_replaced_or_removed_changes_the_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_pages, "LONGEST_UNSEEN_SECONDS", 0)

    def tag() -> str:
        return page_etag(JOB, tmp_path, LogQuery())

    data = tmp_path / "00000001.data"
    tags = [tag()]
    data.write_bytes(b"one\n")
    tags.append(tag())
    before = data.stat()
    data.write_bytes(b"two\n")
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    tags.append(tag())
    replaced = tmp_path / "other"
    replaced.write_bytes(b"two\n")
    replaced.replace(data)
    tags.append(tag())
    (tmp_path / "inputs.json").touch()
    assert tag() == tags[-1]
    data.unlink()
    assert tag() == tags[0]
    assert len(set(tags)) == len(tags)


def test_files_are_looked_at_once_a_second_and_their_directory_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tag() -> str:
        return page_etag(JOB, tmp_path, LogQuery())

    now = 1000.0
    monkeypatch.setattr(sealed_pages, "monotonic", lambda: now)
    data = tmp_path / "00000001.data"
    data.write_bytes(b"one\n")
    before = tag()
    data.write_bytes(b"other\n")
    now += 0.75
    assert tag() == before
    now += 0.25
    changed = tag()
    assert changed != before
    data.unlink()
    later = tmp_path.stat().st_mtime_ns + 1
    os.utime(tmp_path, ns=(later, later))
    assert tag() not in {before, changed}


def test_the_tag_is_another_one_once_the_job_says_that_its_log_was_removed(tmp_path: Path) -> None:
    """Else the page from between, empty without a reason, would stay."""
    removed = Job(job_id="job", log_removed_at=timestamp(1))
    assert page_etag(JOB, tmp_path / "none", LogQuery()) != page_etag(removed, tmp_path / "none", LogQuery())
