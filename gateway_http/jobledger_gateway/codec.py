"""How one application puts messages into JSON."""

from dataclasses import dataclass, field

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pool import DescriptorPool

from jobledger_gateway.dialect import Dialect


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How one application puts messages into JSON.

    Attributes:
        pool: where the types are looked for that details of errors name.
    """

    dialect: Dialect = Dialect.PLAIN
    pool: DescriptorPool = field(default_factory=descriptor_pool.Default)


PLAIN = Codec()
