"""Tells which job types there are."""

from google.protobuf.struct_pb2 import Struct
from jobledger.v1 import job_service_pb2 as pb

from jobledger_server.core.job_types import JobType, JobTypes
from jobledger_server.core.policy import Principal, require_any


def list_job_types(job_types: JobTypes, principal: Principal) -> pb.ListJobTypesResponse:
    """Those that are declared, by name, for whoever may create jobs or read them.

    Raises:
        ServiceError: FORBIDDEN.
    """
    require_any(principal, "jobs:create", "jobs:read")
    declared = job_types.declared
    return pb.ListJobTypesResponse(job_types=[_told(declared[name]) for name in sorted(declared)])


def _told(job_type: JobType) -> pb.JobType:
    told = pb.JobType(
        name=job_type.name,
        description=job_type.description,
        command=job_type.template.source,
        defaults=job_type.defaults,
        allow=sorted(job_type.allow),
    )
    if job_type.schema.document:
        schema = Struct()
        schema.update(job_type.schema.document)
        told.config_schema.CopyFrom(schema)
    return told
