"""Answers that are kept while what they were read from has not changed."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field

MOST_BYTES = 16 * 1024 * 1024
# What a key and its entry take, roughly.
OVERHEAD = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of an answer, and their entity tag."""

    body: bytes
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "etag", f'"{hashlib.blake2b(self.body, digest_size=16).hexdigest()}"')


class CurrentAnswers:
    """Answers of one revision (see `ports.JobStore.revision`), within a number of bytes.

    An answer is given out at the revision at which it was read, and at no other. A new revision drops them all.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._revision: int | None = None
        self._answers: dict[Hashable, Answer] = {}

    def get(self, key: Hashable, revision: int | None) -> Answer | None:
        """The answer, if it is of this revision."""
        return self._answers.get(key) if revision is not None and revision == self._revision else None

    def put(self, key: Hashable, revision: int | None, answer: Answer) -> None:
        """Keeps what was read after the revision was. Where there is no room, all go: they are soon made again."""
        size = OVERHEAD + len(answer.body)
        if revision is None or size > self._most_bytes or (self._revision or 0) > revision:
            return
        if revision != self._revision or self._bytes + size > self._most_bytes:
            self._answers.clear()
            self._revision, self._bytes = revision, 0
        if key not in self._answers:
            self._bytes += size
        self._answers[key] = answer
