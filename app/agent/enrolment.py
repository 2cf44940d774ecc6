"""Enrolment: a one-time code becomes this controller's credential, which is rotated later."""

import hashlib
import logging
import secrets

import httpx

from app.agent import AgentError
from app.agent.pace import Backoff, Pace
from app.agent.server import Server, ServerAway, body, detail, problem
from app.agent.state import StateFolder

logger = logging.getLogger(__name__)

FILE = "identity.json"

OF_ONE_CONTROLLER = ("config.json", "denials.json")
"""What the server gave to the controller we were; another one may stand at another station."""

ROTATE_AFTER_S = 30 * 86_400
"""A credential older than this is exchanged, in seconds."""

ROTATION_PAUSE_S = 300
"""After a failed exchange the next try waits this long, in seconds: the old one serves an hour."""


class EnrolmentRefused(AgentError):
    """The server did not accept the enrolment code."""


class NotEnrolled(AgentError):
    """This controller has no credential and was given no enrolment code."""


class Identity:
    """Who this controller is: its credential, kept in a file only its owner reads."""

    def __init__(self, state: StateFolder, *, serial: str, firmware: str, pace: Pace) -> None:
        self._state = state
        self._serial = serial
        self._firmware = firmware
        self._pace = pace
        self._kept = state.read(FILE)
        self._rotate_not_before = 0.0

    async def enrol(self, server: Server, *, code: str | None) -> None:
        """Give the server its credential: the kept one, or one for the code.

        1. A code that made the kept credential (the command line keeps naming it) is not used
           again; another code enrols anew.
        2. The nonce is on the disk before the first attempt: when the answer is lost, in the air or
           in a power cut, the same code, serial and nonce ask for it again (contract, `enrol`).
        3. The credential is on the disk before it is used for the first time, because the first use
           ends the right to ask again.
        4. As another controller than before we hold none of its config. That is gone first: a power
           cut must not leave the new credential beside the old station's hours.
        """
        kept = self._kept.get("credential")
        if kept and (code is None or self._kept.get("code") == _digest(code)):
            server.credential = str(kept)
            return
        if code is None:
            raise NotEnrolled("not enrolled: an enrolment code is needed, once")
        if self._kept.get("enrolling") != _digest(code):
            nonce = secrets.token_urlsafe(16)
            self._keep(enrolling=_digest(code), nonce=nonce)
        answer = await self._ask(server, code=code)
        if answer.get("controller_id") != self._kept.get("controller"):
            for name in OF_ONE_CONTROLLER:
                self._state.remove(name)
        self._keep(
            credential=str(answer["credential"]),
            credential_at=self._pace.wall(),
            controller=answer.get("controller_id"),
            code=_digest(code),
            enrolling=None,
            nonce=None,
        )
        server.credential = str(answer["credential"])
        logger.info("enrolled controller=%s", answer.get("controller_id"))

    async def rotate_when_old(self, server: Server) -> None:
        """Exchange an old credential; a failure costs nothing, the old one goes on serving."""
        now = self._pace.monotonic()
        age_s = self._pace.wall() - float(self._kept.get("credential_at") or 0.0)
        if age_s < ROTATE_AFTER_S or now < self._rotate_not_before:
            return
        self._rotate_not_before = now + ROTATION_PAUSE_S
        try:
            response = await server.call("POST", "/v1/controller/credential")
            if not response.is_success:
                raise ServerAway(problem(response))
            credential = body(response).get("credential")
            if not isinstance(credential, str):
                raise ServerAway("no credential in the answer")
        except ServerAway as away:
            logger.warning("credential not rotated why=%s", away)
            return
        try:
            self._keep(credential=credential, credential_at=self._pace.wall())
        except OSError as error:
            # Unused, the new one ends nothing: the old one serves on.
            logger.error("credential not rotated why=%s", error)
            return
        server.credential = credential
        logger.info("credential rotated")

    async def _ask(self, server: Server, *, code: str) -> dict[str, object]:
        """Repeat the same request until the server answers it: yes, or 401 to the code."""
        backoff = Backoff(self._pace, first_s=2, most_s=30)
        request = {
            "code": code,
            "serial": self._serial,
            "firmware": self._firmware,
            "nonce": self._kept["nonce"],
        }
        while True:
            try:
                response = await server.call("POST", "/v1/controller/enrol", json=request)
                if response.status_code == httpx.codes.UNAUTHORIZED:
                    raise EnrolmentRefused(f"enrolment refused: {detail(response)}")
                if not response.is_success:
                    # Not a word about the code: a proxy in between, or firmware to be mended.
                    logger.warning("enrolment not taken why=%s", detail(response))
                    raise ServerAway(problem(response))
                answer = body(response)
                if not isinstance(answer.get("credential"), str):
                    raise ServerAway("no credential in the answer")
            except ServerAway as away:
                await self._pace.sleep(backoff.next(away.retry_after_s))
            else:
                return answer

    def _keep(self, **changes: object) -> None:
        kept = {name: value for name, value in (self._kept | changes).items() if value is not None}
        self._state.write(FILE, kept)
        self._kept = kept


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
