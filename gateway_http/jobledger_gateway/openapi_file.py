"""`python -m jobledger_gateway.openapi_file FILE`: writes the OpenAPI document of Jobledger's API, as it is served."""

import asyncio
import json
import sys
from pathlib import Path

import grpc

from jobledger_gateway.app import GatewayOptions
from jobledger_gateway.openapi import document
from jobledger_gateway.routes import routes_of
from jobledger_gateway.streaming import StreamSettings


async def openapi_text() -> str:
    """The document, a line for each value."""
    # Routes are made for a channel; nothing is asked of this one.
    async with grpc.aio.insecure_channel("unix:none") as channel:
        routes = list(routes_of(GatewayOptions().services, channel, StreamSettings(), asyncio.Event()))
        return json.dumps(document(routes), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(asyncio.run(openapi_text()))
