"""Pages that are kept are those that can't change, and no more of them than there is room for."""

import os
from dataclasses import replace
from pathlib import Path

from jobledger_server.joblog.reader import LogQuery
from jobledger_server.service.sealed_pages import SealedPages, page_etag


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
    tags = {page_etag("job", tmp_path, it) for it in [query, *others]} | {page_etag("jobs", tmp_path, query)}
    assert len(tags) == len(others) + 2


def test_levels_have_no_order_in_the_tag(tmp_path: Path) -> None:
    tags = {page_etag("job", tmp_path, LogQuery(levels=frozenset(order))) for order in ([1, 2, 5], [5, 2, 1])}
    assert len(tags) == 1


def test_a_file_that_is_removed_changes_the_tag(tmp_path: Path) -> None:
    before = page_etag("job", tmp_path, LogQuery())
    later = tmp_path.stat().st_mtime_ns + 1
    os.utime(tmp_path, ns=(later, later))
    assert page_etag("job", tmp_path, LogQuery()) != before
    assert page_etag("job", tmp_path / "none", LogQuery()) == page_etag("job", tmp_path / "none", LogQuery())
