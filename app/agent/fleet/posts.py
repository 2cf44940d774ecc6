"""The fleet's posts: at which stations its controllers stand, and who they are to the server.

One file of JSON lines keeps it, readable by its owner only; the last line of a serial counts. It
outlives the process, not a power cut: a fleet is no real controller. The controllers' journals are
in memory alone, so each start of the fleet begins a new epoch of all of them.
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from typing_extensions import override

from app.agent import AgentError
from app.agent.enrolment import FILE as IDENTITY
from app.agent.enrolment import EnrolmentRefused, Identity
from app.agent.link import Link
from app.agent.pace import Pace
from app.agent.server import Server
from app.agent.state import StateFolder

logger = logging.getLogger(__name__)

ENROL_AT_ONCE = 8
"""Stations that are enrolled at the same time; each is two writes of the server."""

FIRMWARE = "yizhan-fleet"


class TooFewStations(AgentError):
    """Not enough stations have access hours and no controller yet."""


class AdminRefused(AgentError):
    """The administrator's API did not do what the fleet needs."""


@dataclass(frozen=True, slots=True)
class AdminLogin:
    """Who makes the enrolment codes."""

    username: str
    password: str = field(repr=False)
    totp: str | None = None


@dataclass(slots=True)
class Post:
    """One controller's place."""

    serial: str
    station: str
    """The station's id."""
    code: str | None = None
    """Its enrolment code, until it has a credential."""
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_enrolled(self) -> bool:
        """Whether it has a credential."""
        return bool(self.identity.get("credential"))


class PostFile:
    """The posts of one fleet, on the disk."""

    FILE = "fleet.jsonl"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / self.FILE
        self.posts: dict[str, Post] = {}
        self.epoch = 1
        for line in self._lines():
            if "serial" in line:
                self.posts[line["serial"]] = Post(**line)
            else:
                self.epoch = line["epoch"] + 1
        self._rewrite()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(self._path, flags, 0o600)

    def keep(self, post: Post) -> None:
        """Write a post down; it outlives this process when this returns."""
        self.posts[post.serial] = post
        os.write(self._file, _line(post))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        content = self._path.read_bytes() if self._path.exists() else b""
        for line in content.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                logger.warning("unreadable line in file=%s", self._path)
        return found

    def _rewrite(self) -> None:
        lines = [json.dumps({"epoch": self.epoch}).encode() + b"\n"]
        lines += [_line(post) for post in self.posts.values()]
        StateFolder(self._path.parent).replace(self.FILE, b"".join(lines))


def _line(post: Post) -> bytes:
    return json.dumps(asdict(post)).encode() + b"\n"


class MemoryState(StateFolder):
    """A controller's state in memory; who it is goes to the fleet's file as well."""

    def __init__(self, post: Post, keep: Callable[[Post], None]) -> None:
        self._post = post
        self._keep = keep
        self._files: dict[str, bytes] = {}

    @override
    def read(self, name: str) -> dict[str, Any]:
        """See `StateFolder`."""
        if name == IDENTITY:
            return dict(self._post.identity)
        return json.loads(self._files[name]) if name in self._files else {}

    @override
    def write(self, name: str, kept: dict[str, Any]) -> None:
        """See `StateFolder`."""
        if name == IDENTITY:
            self._post.identity = dict(kept)
            if self._post.is_enrolled:
                self._post.code = None
            self._keep(self._post)
        else:
            super().write(name, kept)

    @override
    def replace(self, name: str, content: bytes) -> None:
        """See `StateFolder`."""
        self._files[name] = content

    @override
    def remove(self, name: str) -> None:
        """See `StateFolder`."""
        self._files.pop(name, None)

    @override
    def append(self, name: str, line: dict[str, Any]) -> None:
        """See `StateFolder`."""
        self._files[name] = self.content(name) + json.dumps(line).encode() + b"\n"

    @override
    def content(self, name: str) -> bytes:
        """See `StateFolder`."""
        return self._files.get(name, b"")

    @override
    def size(self, name: str) -> int:
        """See `StateFolder`."""
        return len(self.content(name))


async def recruit(
    file: PostFile,
    server_url: str,
    login: AdminLogin,
    *,
    agents: int,
    moved: Callable[[int], None],
    http: httpx.AsyncClient,
) -> None:
    """Enrol controllers at stations with access hours until the fleet has so many.

    1. Stations that have a controller are left alone: enrolling retires the one that is there.
    2. A code is on the disk before it is used, and so is the nonce (`Identity.enrol`): a fleet that
       is stopped half way goes on with the same codes.

    `moved` hears how many are enrolled. Raises `TooFewStations`, `AdminRefused`.
    """
    posts = [post for post in file.posts.values() if not post.is_enrolled]
    headers = await _sign_in(http, server_url, login)
    missing = agents - len(file.posts)
    if missing > 0:
        posts += await _free_posts(http, server_url, headers, missing)
        if (room := len(file.posts.keys() | {post.serial for post in posts})) < agents:
            raise TooFewStations(
                f"{agents} agents need as many stations with access hours and no controller of "
                f"their own; there is room for {room}. To make more, bring in stations with access "
                "hours (`yizhan import stations FILE`), or retire controllers that are not at work "
                "(POST /v1/admin/controllers/{id}/retire)."
            )
    waiting = iter(posts)

    async def work() -> None:
        for post in waiting:
            try:
                if post.code is None:
                    raise EnrolmentRefused("no code yet")
                await _enrol(file, post, server_url, http)
            except EnrolmentRefused:
                # None yet, or one that lay about for a day: the station is ours all the same.
                answer = await http.post(
                    f"{server_url}/v1/admin/controllers/enrolment",
                    headers=headers,
                    json={"station": post.station},
                )
                post.code = str(_checked(answer)["code"])
                file.keep(post)
                await _enrol(file, post, server_url, http)
            moved(sum(one.is_enrolled for one in file.posts.values()))

    async with asyncio.TaskGroup() as group:
        for _ in range(ENROL_AT_ONCE):
            group.create_task(work())


async def _enrol(file: PostFile, post: Post, server_url: str, http: httpx.AsyncClient) -> None:
    state, pace = MemoryState(post, file.keep), Pace()
    server = Server(server_url, http, Link(state, pace), firmware=FIRMWARE)
    identity = Identity(state, serial=post.serial, firmware=FIRMWARE, pace=pace)
    await identity.enrol(server, code=post.code)


async def _sign_in(http: httpx.AsyncClient, url: str, login: AdminLogin) -> dict[str, str]:
    body = {"username": login.username, "password": login.password}
    if login.totp is not None:
        body["totp"] = login.totp
    token = _checked(await http.post(f"{url}/v1/admin/login", json=body))["access_token"]
    return {"Authorization": f"Bearer {token}"}


async def _free_posts(
    http: httpx.AsyncClient, url: str, headers: dict[str, str], wanted: int
) -> list[Post]:
    """Find stations that a scan may open and that have no controller."""
    taken = {
        one["station_id"]
        async for one in _every(http, f"{url}/v1/admin/controllers", headers)
        if one["retired_at"] is None
    }
    found: list[Post] = []
    async for one in _every(http, f"{url}/v1/admin/stations", headers):
        if len(found) == wanted:
            break
        if one["access_hours"] and one["retired_at"] is None and one["id"] not in taken:
            found.append(Post(f"fleet-{one['code']}", str(one["id"])))
    return found


async def _every(
    http: httpx.AsyncClient, url: str, headers: dict[str, str]
) -> AsyncIterator[dict[str, Any]]:
    """Read a list page by page."""
    following: str | None = f"{url}?limit=200"
    while following is not None:
        answer = await http.get(following, headers=headers)
        for one in _checked(answer):
            yield one
        link = answer.links.get("next")
        following = str(answer.url.join(link["url"])) if link else None


def _checked(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json()
    try:
        why = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        why = f"status {answer.status_code}"
    raise AdminRefused(f"{answer.request.url.path}: {why}")
