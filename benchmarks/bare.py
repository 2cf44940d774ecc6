"""The bare poll handler: the same framework and server, without the product; it only waits."""

import asyncio
from typing import Annotated

from fastapi import FastAPI, Query, Response


def build() -> FastAPI:
    """Build it for uvicorn."""
    app = FastAPI(openapi_url=None)

    @app.get("/v1/controller/commands", status_code=204)
    async def poll(wait: Annotated[int, Query(ge=0, le=60)] = 25) -> Response:
        await asyncio.sleep(wait)
        return Response(status_code=204)

    return app
