"""The transcoder before a service within its process: `python -m benchmarks.bare_gateway FILE`.

Its GetJob answers with the message in FILE, always the same. It has no token, no validation, no store: what a request
over HTTP and its answer in JSON cost. It prints its address, and ends with its standard input.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
from jobledger.v1 import job_service_pb2
from jobledger.v1.job_pb2 import Job
from jobledger.v1.job_service_pb2 import GetJobRequest
from jobledger_gateway.transcoder import serve, transcode
from jobledger_server.api.inprocess import InProcessChannel

SERVICE = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]


def constant(message: Job) -> grpc.GenericRpcHandler:
    """A service whose GetJob answers with one message."""

    async def answer(request: GetJobRequest, context: object) -> Job:
        return message

    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    return grpc.method_handlers_generic_handler(SERVICE.full_name, {"GetJob": handler})


async def main(file: Path) -> None:
    async with InProcessChannel(()) as opened:
        opened.add_generic_rpc_handlers((constant(Job.FromString(file.read_bytes())),))
        channel: Any = opened
        async with serve(transcode([SERVICE], channel), host="127.0.0.1", port=0) as address:
            print(f"{address.host}:{address.port}", flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
