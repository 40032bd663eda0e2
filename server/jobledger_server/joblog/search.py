"""Whether entries of a log match a subsystem or a text. Raw bytes are looked at first: most decide it."""

from collections.abc import Sequence

from jobledger_server.joblog.pieces import (
    SUBSYSTEMS,
    MisfitError,
    gap_message,
    lines_of,
    plain_subsystem,
)
from jobledger_server.joblog.segments import Kind, Run
from jobledger_server.joblog.structured import ENGINE, parse_structured

# Where JSON spells text in another way than it reads, there is one of these.
ESCAPE = b"\\"
REPLACEMENT = "\ufffd"


class Matcher:
    """Tells which entries have this subsystem, and this text in their message; None stands for any."""

    def __init__(self, subsystem: str | None, text: str | None) -> None:
        self._subsystem = subsystem
        self._text = text
        self._needle = _bytes(text or "")
        # A structured entry without a subsystem has that of its stream, which its line does not show.
        shown = subsystem is not None and subsystem not in SUBSYSTEMS.values()
        self._structured_needle = self._needle or (_bytes(subsystem or "") if shown else b"")

    def may_be_in(self, data: bytes) -> bool:
        """False where it is plain that no entry in these bytes, of any number of runs, matches."""
        return self._needle in data or ESCAPE in data

    @property
    def has_needle(self) -> bool:
        """Whether bytes can tell that nothing in them matches."""
        return bool(self._needle)

    def needs(self, run: Run) -> bool:
        """Whether it takes the bytes of a run to tell, rather than its record alone."""
        return run.kind == Kind.STRUCTURED or (self._text is not None and self._admits(run))

    def gap(self, dropped: int) -> bool:
        """Whether the entry that stands for `dropped` ones matches."""
        return self._subsystem in {None, ENGINE} and (self._text is None or self._text in gap_message(dropped))

    def places(self, run: Run, data: bytes) -> Sequence[int]:
        """Entries of a run that match, from 0, ascending.

        Args:
            data: the bytes of the run; without meaning where they are not needed.

        Raises:
            MisfitError: they are not what the run says.
        """
        if run.kind == Kind.STRUCTURED:
            return self._structured(run, data)
        if not self._admits(run):
            return ()
        if self._text is None:
            return range(run.entries)
        if self._needle not in data:
            return ()
        lines = enumerate(lines_of(run, data))
        if REPLACEMENT in self._text:
            return [place for place, line in lines if self._text in line.decode("utf-8", "replace")]
        return [place for place, line in lines if self._needle in line]

    def _admits(self, run: Run) -> bool:
        return self._subsystem in {None, plain_subsystem(run)}

    def _structured(self, run: Run, data: bytes) -> Sequence[int]:
        needle = self._structured_needle
        if needle not in data and ESCAPE not in data:
            return ()
        lines = enumerate(lines_of(run, data))
        return [place for place, line in lines if (needle in line or ESCAPE in line) and self._says(run, line)]

    def _says(self, run: Run, line: bytes) -> bool:
        said = parse_structured(line)
        if said is None:
            raise MisfitError
        subsystem = said.subsystem or SUBSYSTEMS[run.stream]
        return self._subsystem in {None, subsystem} and (self._text is None or self._text in said.message)


def _bytes(text: str) -> bytes:
    """What of a text is found in the log as it is: where bytes were replaced, the message has what the log has not."""
    return b"" if REPLACEMENT in text else text.encode("utf-8", "surrogatepass")
