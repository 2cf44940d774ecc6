"""HTTP for whoever shows all stations: the public feed, sent from memory."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from app.api.deps import Held, unchanged
from app.api.problems import problems
from app.api.site import public
from app.feed.rules import FeedFile

router = APIRouter(tags=["public"], dependencies=[Depends(public)])

FEED_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["last_updated", "ttl", "version", "data"],
    "properties": {
        "last_updated": {"type": "string", "format": "date-time"},
        "ttl": {"type": "integer"},
        "version": {"type": "string"},
        "data": {"type": "object"},
    },
}


@router.get(
    "/v1/feed/{name}.json",
    response_class=Response,
    responses={
        **problems(),
        200: {
            "description": "A file of the feed.",
            "content": {"application/json": {"schema": FEED_SCHEMA}},
        },
        304: {"description": "Nothing changed."},
    },
)
async def feed_file(
    name: FeedFile,
    request: Request,
    held: Held,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give a file of the feed; `gbfs` lists the others."""
    given = await held.feed.file(name)
    built = given.built
    headers = {
        # Weak: the same data, whenever it was built, plain or compressed.
        "ETag": f"W/{built.etag}",
        "Cache-Control": f"public, max-age={given.max_age_s}",
        "Vary": "Accept-Encoding",
        "Access-Control-Allow-Origin": "*",
    }
    if unchanged(if_none_match, built.etag):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(built.zipped, media_type="application/json", headers=headers)
    return Response(built.plain, media_type="application/json", headers=headers)
