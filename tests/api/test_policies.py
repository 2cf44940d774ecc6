"""Every route says who may pass, and every failure has one shape."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.api.problems import catalogue
from app.api.words import REASONS, Language, too_little, usually
from app.doors.rules import Reason
from app.usual.rules import UsualClass
from app.visits.rules import Level

pytestmark = pytest.mark.anyio


def policies_of(dependant: Dependant) -> Iterator[str]:
    found = getattr(dependant.call, "policy", None)
    if found:
        yield found
    for below in dependant.dependencies:
        yield from policies_of(below)


def routes_of(app: FastAPI) -> list[APIRoute]:
    return [route for route in walk(app.routes) if isinstance(route, APIRoute)]


def walk(routes: Any) -> Iterator[Any]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from walk(included.routes)
        else:
            yield route


async def test_every_route_has_a_policy(app: FastAPI) -> None:
    routes = routes_of(app)
    assert len(routes) > 60
    without = [route.path for route in routes if not list(policies_of(route.dependant))]
    assert without == []


async def test_admin_routes_are_for_administrators_and_controller_routes_for_controllers(
    app: FastAPI,
) -> None:
    for route in routes_of(app):
        policy = " ".join(policies_of(route.dependant))
        if route.path.startswith("/v1/admin/") and route.path != "/v1/admin/login":
            assert "administrator" in policy or route.path == "/v1/admin/logout", route.path
        if route.path.startswith("/v1/controller/"):
            assert "controller" in policy or "enrolment" in policy, route.path


def test_a_route_without_a_policy_would_be_found() -> None:
    app = FastAPI()

    @app.get("/open")
    async def open_route() -> None: ...

    (route,) = [route for route in routes_of(app) if route.path == "/open"]
    assert list(policies_of(route.dependant)) == []


async def test_every_failure_has_one_shape(client: httpx.AsyncClient) -> None:
    answers = [
        await client.get("/nowhere"),
        await client.put("/healthz"),
        await client.post("/v1/auth/otp", content="{"),
        await client.post("/v1/auth/otp", json={"phone": "13800138000", "extra": 1}),
        await client.get("/v1/me"),
        await client.get("/v1/admin/stations"),
        await client.get("/v1/controller/config"),
        await client.get("/v1/stations/none-such"),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert set(body) >= {"type", "title", "status", "detail", "code"}
        assert body["status"] == answer.status_code
        assert body["type"] == "/problems/" + body["code"].replace("_", "-")


def test_problem_codes_are_unique_and_titles_are_sentences() -> None:
    kinds = list(catalogue())
    codes = [kind.code() for kind in kinds]
    assert len(codes) == len(set(codes))
    for kind in kinds:
        assert kind.title().endswith("."), kind


def test_every_reason_and_level_has_its_words_in_every_language() -> None:
    for language in Language:
        for reason in Reason:
            assert REASONS[reason][language]
        for level in Level:
            said = {usually(level, days, 2, language) for days in UsualClass}
            assert len(said) == len(UsualClass)
            assert all("02:00" in one for one in said)
        assert len({too_little(days, 2, language) for days in UsualClass}) == len(UsualClass)
