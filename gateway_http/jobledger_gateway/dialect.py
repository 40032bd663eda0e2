"""The ways in which a message looks in JSON."""

from enum import StrEnum


class Dialect(StrEnum):
    """A way in which a message looks in JSON. An application speaks one.

    Attributes:
        PLAIN: names as in the .proto, enums short and lower case, 64-bit integers as numbers, every field present.
        PROTOJSON: canonical ProtoJSON: camelCase, enums by their full names, 64-bit integers as strings, fields that
            are unset absent.
    """

    PLAIN = "plain"
    PROTOJSON = "protojson"
