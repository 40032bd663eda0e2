"""What the store remembers of blobs that it has read: bounded, and never of one that looks otherwise."""

from jobledger_server.blobs.seen import TAG, Look, Seen

LOOK = Look(1, 2, 3, 4, 5)


def test_what_was_noted_is_known_until_it_looks_otherwise() -> None:
    seen = Seen()
    seen.note("a", LOOK, b"tags")
    assert seen.tags("a", LOOK) == b"tags"
    for field in Look._fields:
        assert seen.tags("a", LOOK._replace(**{field: 99})) is None
    seen.forget("a")
    assert seen.tags("a", LOOK) is None


def test_only_the_latest_are_remembered() -> None:
    seen = Seen(most_tag_bytes=10 * TAG, most_blobs=3)
    for name in "abc":
        seen.note(name, LOOK, bytes(TAG))
    assert seen.tags("a", LOOK) == bytes(TAG)
    seen.note("d", LOOK, bytes(TAG))
    assert [name for name in "abcd" if seen.tags(name, LOOK)] == ["a", "c", "d"]
    seen.note("e", LOOK, bytes(9 * TAG))
    assert [name for name in "abcde" if seen.tags(name, LOOK)] == ["d", "e"]


def test_a_tag_fits_its_chunk_alone() -> None:
    seen, tagger = Seen(), Seen().tagger()
    mine = seen.tagger()
    for chunk in (b"one", b"two"):
        mine.update(chunk)
        tagger.update(chunk)
    assert seen.is_chunk(mine.tags, 1, b"two")
    assert not seen.is_chunk(mine.tags, 0, b"two")
    assert not seen.is_chunk(mine.tags, 2, b"")
    assert not seen.is_chunk(tagger.tags, 1, b"two"), "another process has another key"
