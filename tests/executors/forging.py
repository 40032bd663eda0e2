"""Statements as a supervisor makes them, and how a job forges them."""

import json
import zlib

from jobledger_server.executors.local.record import BYTES, START_BYTES

GOOD = {"protocol": 2, "reason": "exited", "exit_code": 3, "message": "", "started_at": 1, "ended_at": 2, "log": {}}
STARTED = {"shim": 7, "pid": 8, "started_at": 5, "pid_started": 6, "boot_id": "b"}
# More digits than any integer in a store or a message has.
HUGE = 10**900


def recorded(start: object, end: object) -> bytes:
    """A record as a supervisor writes it, with a checksum that holds."""
    text = json.dumps(end).encode()
    line = b"%08x %s" % (zlib.crc32(text), text)
    return json.dumps(start).encode().ljust(START_BYTES) + line.ljust(BYTES - START_BYTES)
