"""How much a receipt can tell: it must reach clients, most of which take messages of 4 MiB."""

import json

# Of the signed payload, in bytes. Its envelope is 4/3 as long, and has the job's own specification beside this.
ROOM = 2_400_000
# Of it, for what is refused: a job must not fill its receipt with that.
REFUSED_ROOM = ROOM // 4
# What a receipt says of an output, and again of its subject, but for the path; and of something refused.
OUTPUT_COST, REFUSAL_COST = 230, 30


class ReceiptRoom:
    """What is left of a receipt's room while outputs and refusals are noted.

    Attributes:
        outputs, refusals: how many found none.
    """

    def __init__(self, room: int = ROOM, refused_room: int = REFUSED_ROOM) -> None:
        self._outputs_left = room - refused_room
        self._refused_left = refused_room
        self.outputs = 0
        self.refusals = 0

    def takes_output(self, path: str) -> bool:
        """Notes an output. False: there is no room for it."""
        cost = OUTPUT_COST + 2 * _length(path)
        if cost > self._outputs_left:
            self.outputs += 1
            return False
        self._outputs_left -= cost
        return True

    def takes_refusal(self, path: str, reason: str) -> bool:
        """Notes something refused. False: there is no room for it."""
        cost = REFUSAL_COST + _length(path) + _length(reason)
        if cost > self._refused_left:
            self.refusals += 1
            return False
        self._refused_left -= cost
        return True

    def summary(self) -> list[str]:
        """What to say of those that found none."""
        said = []
        if self.outputs:
            said.append(
                f"{self.outputs} more files are not collected: a receipt has no room to name them. Leave one archive"
                " instead of many files"
            )
        if self.refusals:
            said.append(f"{self.refusals} more are refused, which a receipt has no room to name")
        return said


def _length(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))
