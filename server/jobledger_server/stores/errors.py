"""What every store may raise besides the errors of `core.ports`."""


class SchemaError(Exception):
    """The database's schema is not one that this version can work with; the message says what to do."""
