"""What a filter asks, as SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobledger_server.core.ports import JobFilter

HIGHEST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Clauses that must all hold, and the values of their placeholders in order."""

    clauses: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()

    @classmethod
    def of_kind(cls, where: JobFilter) -> "Conditions":
        """What is asked of workspace, state and type, over `jobs` or the counters."""
        conditions = cls()
        if where.workspace_id is not None:
            conditions = conditions.also("workspace_id = ?", where.workspace_id)
        if where.workspaces is not None:
            conditions = conditions.among("workspace_id", where.workspaces)
        if where.states:
            conditions = conditions.among("state", where.states)
        if where.job_type is not None:
            conditions = conditions.also("job_type = ?", where.job_type)
        return conditions

    @classmethod
    def of_place(cls, where: JobFilter, after: tuple[int, str] | None = None) -> "Conditions":
        """What is asked of created_at and job_id, over `jobs` or `job_labels`; with `after`, behind that place."""
        conditions = cls()
        if where.created_after is not None:
            conditions = conditions.also("created_at >= ?", where.created_after)
        # One upper bound: of two SQLite might seek to the weaker, and read all that lies between.
        if after is not None and (where.created_before is None or after[0] < where.created_before):
            conditions = conditions.also("(created_at, job_id) < (?, ?)", *after)
        elif where.created_before is not None:
            conditions = conditions.also("created_at < ?", where.created_before)
        if where.id_prefix:
            # A range, since LIKE has wildcards and no index here.
            conditions = conditions.also(
                "job_id >= ? AND job_id < ?", where.id_prefix, where.id_prefix + HIGHEST_CHARACTER
            )
        if where.job_ids:
            conditions = conditions.among("job_id", where.job_ids)
        return conditions

    @property
    def sql(self) -> str:
        """The WHERE clause; empty where nothing is asked."""
        return f"WHERE {' AND '.join(self.clauses)}" if self.clauses else ""

    def also(self, clause: str, *values: Any) -> "Conditions":
        return Conditions(clauses=(*self.clauses, clause), values=(*self.values, *values))

    def among(self, column: str, values: Sequence[Any]) -> "Conditions":
        """The column has one of the values."""
        return self.also(f"{column} IN ({', '.join('?' * len(values))})", *values)

    def labelled(self, labels: Sequence[tuple[str, str]], *, number: str) -> "Conditions":
        """The job whose number stands in the column `number` has these labels."""
        conditions = self
        for label in labels:
            conditions = conditions.also(
                f"EXISTS (SELECT 1 FROM job_labels AS also WHERE also.job_number = {number}"  # noqa: S608
                " AND also.key = ? AND also.value = ?)",
                *label,
            )
        return conditions

    def __add__(self, other: "Conditions") -> "Conditions":
        return Conditions(clauses=self.clauses + other.clauses, values=self.values + other.values)
