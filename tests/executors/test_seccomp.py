"""The filter of system calls, run as the kernel would run it: for architectures that this machine is not."""

import struct

import pytest
from jobledger_server.executors.local import seccomp
from jobledger_server.executors.local.seccomp import ALLOW, ANSWER, INSTRUCTION, JUMP, KNOWN, LOAD, MASK, REFUSE

X32 = 0x40000000
OTHER_ARCHITECTURE, OTHER_CALL = 0x12345678, 39


def answer(program: bytes, architecture: int, number: int, pid: int) -> int:
    """What a filter says of a call: `struct seccomp_data` is number, architecture, place, and the arguments."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, pid, 0, 0, 0, 0, 0)
    instructions = list(INSTRUCTION.iter_unpack(program))
    at = accumulator = 0
    while instructions[at][0] != ANSWER:
        operation, if_equal, if_not, value = instructions[at]
        if operation == LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == MASK:
            accumulator &= value
        else:
            assert operation == JUMP
            at += if_equal if accumulator == value else if_not
        at += 1
    return int(instructions[at][3])


@pytest.mark.parametrize("machine", KNOWN)
def test_limits_of_others_are_refused_and_all_else_goes(machine: str) -> None:
    calls = KNOWN[machine]
    program = seccomp.program_for(calls)
    doors = [(calls.own, calls.prlimit), (calls.compatible, calls.compatible_prlimit)]
    for architecture, number in doors:
        assert answer(program, architecture, number, 0) == ALLOW
        assert answer(program, architecture, number, 4711) == REFUSE
        assert answer(program, architecture, OTHER_CALL, 4711) == ALLOW
    assert answer(program, calls.own, calls.prlimit | X32, 4711) == REFUSE
    # The number of one is another call in the other; and the kernel takes a pid for 32 bits.
    assert answer(program, calls.own, calls.compatible_prlimit, 4711) == ALLOW
    assert answer(program, calls.own, calls.prlimit, 4711 << 32 | 4711) == REFUSE
    assert answer(program, OTHER_ARCHITECTURE, calls.prlimit, 4711) == ALLOW
