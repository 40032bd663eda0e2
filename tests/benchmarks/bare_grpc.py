"""A bare grpc.aio server: `python -m benchmarks.bare_grpc FILE`.

Its ListJobs parses the request and answers with the message in FILE, always the same, serialized for each call. It has
no token, no validation, no store: what grpc.aio itself costs. It prints its address, and ends with its standard input.
"""

import asyncio
import sys
from pathlib import Path

import grpc
from jobledger.v1.job_service_pb2 import ListJobsRequest, ListJobsResponse


def constant(message: ListJobsResponse) -> grpc.GenericRpcHandler:
    """A service whose ListJobs answers with one message."""

    async def answer(request: ListJobsRequest, context: object) -> ListJobsResponse:
        return message

    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=ListJobsRequest.FromString,
        response_serializer=ListJobsResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("jobledger.v1.JobService", {"ListJobs": handler})


async def main(file: Path) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((constant(ListJobsResponse.FromString(file.read_bytes())),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
