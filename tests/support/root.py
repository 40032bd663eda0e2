"""What only root may do: give files away, and become another user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NOBODY = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, or become another user")


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Makes this process another user's, all its threads, for as long as it takes to open or connect something."""
    own = os.geteuid()
    if uid != own:
        os.seteuid(uid)
    try:
        yield
    finally:
        if uid != own:
            os.seteuid(own)
