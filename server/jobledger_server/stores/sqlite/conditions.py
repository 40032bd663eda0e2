"""What a filter asks, as SQL over the table `jobs`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobledger.v1.job_pb2 import JobState

from jobledger_server.core.ports import JobFilter

HIGHEST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Clauses that must all hold, and the values of their placeholders in order."""

    clauses: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()

    @classmethod
    def of(cls, where: JobFilter) -> "Conditions":
        """All that the filter asks but for its states: the queries treat these each in their own way."""
        conditions = cls()
        if where.created_after is not None:
            conditions = conditions.also("created_at >= ?", where.created_after)
        if where.created_before is not None:
            conditions = conditions.also("created_at < ?", where.created_before)
        if where.id_prefix:
            # A range, since LIKE has wildcards and no index here.
            conditions = conditions.also(
                "job_id >= ? AND job_id < ?", where.id_prefix, where.id_prefix + HIGHEST_CHARACTER
            )
        if where.job_ids:
            conditions = conditions.among("job_id", where.job_ids)
        if where.workspace_id is not None:
            conditions = conditions.also("workspace_id = ?", where.workspace_id)
        if where.workspaces is not None:
            conditions = conditions.among("workspace_id", where.workspaces)
        if where.job_type is not None:
            conditions = conditions.also("job_type = ?", where.job_type)
        for key, value in where.labels:
            conditions = conditions.also(
                "number IN (SELECT job_number FROM job_labels WHERE key = ? AND value = ?)", key, value
            )
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

    def in_states(self, states: Sequence[JobState.ValueType]) -> "Conditions":
        """One of the states; of none, any."""
        return self.among("state", states) if states else self
