"""What every store may raise besides the errors of `core.ports`."""


class InvariantError(AssertionError):
    """The caller tried to write what may never be: a terminal job changed, an id used twice. A bug of the caller's."""


class SchemaError(Exception):
    """The database's schema is not one that this version can work with; the message says what to do."""
