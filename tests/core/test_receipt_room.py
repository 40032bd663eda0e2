"""What a receipt has room to name."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobledger_server.core.ports import LogSummary
from jobledger_server.core.receipt_room import ROOM, ReceiptRoom
from jobledger_server.core.receipts import Environment, build_receipt, seal
from support.records import COMPLETED, RUNNING, a_change, a_record

DEFAULT_MESSAGE_BYTES = 4 * 1024 * 1024
MIB = 1024 * 1024


class NoSigner:
    def sign(self, data: bytes) -> tuple[str, bytes]:
        return "0" * 64, bytes(64)


def envelope_of(outputs: list[tuple[str, int, str]], refused: list[tuple[str, str]], config: int) -> bytes:
    record: Any = a_record(RUNNING)
    record.job.spec.config.update({"text": "x" * config})
    ended = a_change(record, COMPLETED, at=record.job.created_at.seconds * 1_000_000 + 10**6).record
    receipt = build_receipt(
        record=ended,
        log=LogSummary(),
        environment=Environment(engine_version="1", os="os", platform="p", python="3", host="h"),
        inputs={},
        outputs=outputs,
        refused=refused,
    )
    return seal(receipt, NoSigner()).envelope


@pytest.mark.parametrize("path", ["{:05}", "d/{:05}" + "é" * 1000, "{:05}" + '"' * 500, "{:05}" + "🎉" * 1000])
def test_a_full_receipt_is_a_message_that_clients_take_by_default(path: str) -> None:
    room, outputs, refused = ReceiptRoom(), list[tuple[str, int, str]](), list[tuple[str, str]]()
    while room.takes_output(named := path.format(len(outputs))):
        outputs.append((named, 2**52, "0" * 64))
    while room.takes_refusal(named := path.format(len(refused)), "a symbolic link"):
        refused.append((named, "a symbolic link"))
    found = len(envelope_of(outputs, refused, 512 * 1024))
    assert ROOM < found < DEFAULT_MESSAGE_BYTES
    assert (room.outputs, room.refusals) == (1, 1)


def test_thousands_of_files_with_ordinary_names_find_room() -> None:
    room = ReceiptRoom()
    assert sum(room.takes_output(f"results/part-{number:05}.csv") for number in range(20_000)) > 6_000
    assert room.summary() == [
        f"{room.outputs} more files are not collected: a receipt has no room to name them. Leave one archive instead of"
        " many files"
    ]


@given(st.text(max_size=50))
def test_an_output_never_takes_more_than_it_is_counted_for(name: str) -> None:
    room, left = ReceiptRoom(), 100_000
    one = len(base64.b64decode(json.loads(envelope_of([(name, 2**52, "0" * 64)], [], 0))["payload"]))
    none = len(base64.b64decode(json.loads(envelope_of([], [], 0))["payload"]))
    assert room.takes_output(name)
    assert one - none <= ROOM - room._outputs_left - ROOM // 4 < left
