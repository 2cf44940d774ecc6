"""What runs by the clock: a table of jobs and the loop that runs them.

A job is an operation and an interval. Of several processes one runs each job, by a lease per name;
`yizhan job run NAME` runs one by hand, through the same function.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app import privacy
from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.alerts.webhooks import sending
from app.alerts.webhooks.sending import Sender
from app.db import leases
from app.db.types import Base
from app.db.upsert import upsert
from app.doors import attendance, commands, completeness, effects, lookout, outages, screens, watch
from app.doors.rules import SCREEN_DEAD_AFTER
from app.people import sign_in
from app.places import calendar
from app.places import held as modes
from app.places.rules import CITY_ZONE, local_day
from app.reports import changes, rollup
from app.reports.progress import progress
from app.runtime import Runtime
from app.usual import profiles
from app.visits import presence

log = logging.getLogger(__name__)


class JobRun(Base):
    """When a job last went well."""

    __tablename__ = "job_runs"

    name: Mapped[str] = mapped_column(primary_key=True)
    succeeded_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of periodic work."""

    name: str
    every: timedelta
    run: Callable[[Runtime], Awaitable[None]]
    """Does the work once; running it twice does no harm."""
    is_patient: bool = False
    """Waits for a minute after the start: with the server all controllers come back."""
    is_nightly: bool = False
    """Runs once a day, as soon as the day before is counted; looks so often whether it is time."""
    version: int | None = None
    """Of what only one of several versions does: each takes turns among its own."""

    @property
    def turn(self) -> str:
        """What processes take turns at."""
        return self.name if self.version is None else f"{self.name} {self.version}"


async def expire_commands(held: Runtime) -> None:
    """Write down which unlock commands are over."""
    async with held.database.write() as tx:
        await commands.expire(tx, clock=held.deadlines, at=held.now())


async def sweep_visits(held: Runtime) -> None:
    """End the visits whose time is over, as of the instant at which it was."""
    async with held.database.write() as tx:
        await presence.sweep(tx, at=held.now())


async def send_codes(held: Runtime) -> None:
    """Send login codes whose sending was interrupted."""
    domain = urlsplit(held.settings.public_url).netloc
    await sign_in.send_due(held.database, held.sms, vault=held.vault, domain=domain, now=held.now)


async def send_webhooks(held: Runtime) -> None:
    """Tell other systems of the alerts that opened, were taken on or closed."""
    await sending.send_due(
        Sender(held.database, held.courier, held.vault, held.settings.public_url, held.now)
    )


async def apply_events(held: Runtime) -> None:
    """Write the effects of journal events whose process ended before it could."""
    await effects.apply_due(held.database, held.scans, now=held.now)


async def watch_doors(held: Runtime) -> None:
    """Open and close the alerts that come with time: silence, doors that do not open, quiet.

    Until somebody has listened for as long as silence takes, and could write it down, nobody is
    called silent: after an outage of ours, or of our database, all of the city would be.
    """
    at, silence = held.now(), timedelta(seconds=held.settings.controller_silence_s)
    async with held.database.write() as tx:
        since = await outages.listening_since(tx, at=at)
        listened = timedelta() if since is None else at - since
        if listened >= silence:
            await watch.silence(tx, after=silence, at=at)
        if listened >= SCREEN_DEAD_AFTER:
            await screens.watch(tx, at=at)
        await watch.not_opened(tx, at=at)
        await completeness.watch_gaps(tx, at=at)
        await book.close_quiet(tx, at=at)


async def watch_staff(held: Runtime) -> None:
    """Turn stations to scanning where staff should be and nothing shows that they came."""
    calendar, silence = held.calendar.current, timedelta(seconds=held.settings.controller_silence_s)
    await attendance.watch(held.database, held.wakeups, calendar, silence=silence, now=held.now)


async def record_modes(held: Runtime) -> None:
    """Write down which modes held until now."""
    await modes.record_all(held.database, now=held.now)


async def roll_up(held: Runtime) -> None:
    """Count anew the days of which something changed, and all that is summed from them."""
    retention = timedelta(days=held.settings.retention_days)
    silence = timedelta(seconds=held.settings.controller_silence_s)
    terms = rollup.Terms(at=held.now(), retention=retention, silence=silence)
    done = await rollup.roll_up(held.database, terms)
    if done.settled:
        log.info("rolled up found=%s settled=%s", done.found, done.settled)


async def make_usual_profiles(held: Runtime) -> None:
    """Make anew what is usual at every station."""
    days = (await held.calendar.fresh(held.database)).current
    made = await profiles.make(held.database, days, at=held.now())
    log.info("usual profiles made stations=%s", made)


async def retain(held: Runtime) -> None:
    """Take the person out of what is past its retention time; let old raw data of devices go."""
    days = held.settings.retention_days
    await privacy.retain(held.database, at=held.now(), retention_days=days)


async def warn_calendar(held: Runtime) -> None:
    """Warn when next year's holidays are missing, until they are there."""
    at, year = held.now(), held.now().year + 1
    async with held.database.write() as tx:
        await held.calendar.load(tx)
        known = {f"calendar:{one}" for one in held.calendar.current.years}
        told = (await book.open_ones(tx, AlertKind.CALENDAR_MISSING)).keys()
        for subject in told & known:
            await book.settle(tx, AlertKind.CALENDAR_MISSING, subject, at=at)
        subject = f"calendar:{year}"
        if subject in told or not calendar.missing_next_year(held.calendar.current, at.date()):
            return
        log.warning("calendar missing year=%s", year)
        evidence = Evidence(AlertKind.CALENDAR_MISSING, subject, None, at, {"year": year})
        await book.note(tx, evidence, at=at)


JOBS: tuple[Job, ...] = (
    Job("expire-commands", timedelta(seconds=5), expire_commands),
    Job("apply-events", timedelta(seconds=5), apply_events),
    Job("send-webhooks", timedelta(seconds=5), send_webhooks),
    Job("watch-doors", timedelta(seconds=15), watch_doors),
    Job("send-codes", timedelta(seconds=30), send_codes),
    Job("watch-staff", timedelta(seconds=30), watch_staff),
    Job("sweep-visits", timedelta(minutes=1), sweep_visits),
    Job("record-modes", timedelta(minutes=15), record_modes, is_patient=True),
    Job("roll-up", timedelta(minutes=1), roll_up, is_patient=True, version=changes.RULES),
    Job(
        "usual-profiles",
        timedelta(minutes=5),
        make_usual_profiles,
        is_patient=True,
        is_nightly=True,
    ),
    Job("retain", timedelta(hours=1), retain, is_patient=True),
    Job("warn-calendar", timedelta(hours=1), warn_calendar),
)
"""Every job, by how often it runs."""


def find(name: str) -> Job | None:
    """Find a job by its name."""
    return next((job for job in JOBS if job.name == name), None)


async def run_once(held: Runtime, job: Job) -> None:
    """Run a job now and note that it went well."""
    await job.run(held)
    await _note(held, job)


async def _note(held: Runtime, job: Job) -> None:
    async with held.database.write() as tx:
        await tx.execute(
            upsert(tx, JobRun)
            .values(name=job.name, succeeded_at=held.now())
            .on_conflict_do_update(index_elements=["name"], set_={"succeeded_at": held.now()})
        )


async def run_all(held: Runtime) -> None:
    """Run every job for as long as the process serves."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    async with asyncio.TaskGroup() as group:
        for job in JOBS:
            group.create_task(_repeat(held, job, holder), name=job.name)
        group.create_task(_write_heard(held), name="write-heard")
        group.create_task(_ring_missed(held), name="ring-missed")


PATIENCE_S = 60.0
"""By then everybody is back (promise R11)."""


NOTED_EVERY_S = 60.0
"""How often at most is written down that a job went well: whoever asks looks for hours."""


async def _repeat(held: Runtime, job: Job, holder: str) -> None:
    if job.is_patient:
        await asyncio.sleep(PATIENCE_S)
    turn = _Turn(holder)
    noted = float("-inf")
    while True:
        try:
            if await is_time(held, job) and await turn.is_ours(held, job):
                await job.run(held)
                if held.monotonic() - noted >= NOTED_EVERY_S:
                    await _note(held, job)
                    noted = held.monotonic()
        except Exception:
            log.exception("job failed name=%s", job.name)
        await asyncio.sleep(job.every.total_seconds())


NIGHT_BEGINS = timedelta(hours=1)
"""So long after midnight word of the day before has mostly come."""


async def is_time(held: Runtime, job: Job) -> bool:
    """Whether a job is to run at this look: one of the night's work once a night.

    And not before all days before it are counted, however long that takes after an outage or in a
    database that was just filled: of hours that are not counted nobody would see that they are not.
    """
    if not job.is_nightly:
        return True
    async with held.database.read() as tx:
        last = (await last_runs(tx)).get(job.name)
        counted_at = (await progress(tx)).counted_at
    night = _night_of(held.now())
    is_counted = counted_at is not None and local_day(counted_at, CITY_ZONE) >= night
    return is_counted and (last is None or _night_of(last) < night)


def _night_of(at: datetime) -> date:
    return local_day(at - NIGHT_BEGINS, CITY_ZONE)


class _Turn:
    """Whether a job is this process's to run, and until when nobody need ask."""

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._until = float("-inf")
        """On this process's monotonic clock, which nobody sets."""

    async def is_ours(self, held: Runtime, job: Job) -> bool:
        """Take the lease, or renew it in time for the next run."""
        if held.database.is_embedded:
            return True  # One process writes, and this is it.
        begun, duration = held.monotonic(), max(job.every * 1.5, timedelta(seconds=30))
        if begun + job.every.total_seconds() < self._until:
            return True
        async with held.database.write() as tx:
            taken = await leases.take(
                tx, job.turn, holder=self._holder, at=held.now(), duration=duration
            )
        self._until = begun + duration.total_seconds() if taken else float("-inf")
        return taken


async def _write_heard(held: Runtime) -> None:
    """Write when controllers were heard, and which boots: every process what it heard itself."""
    while True:
        await asyncio.sleep(outages.LISTENS_EVERY.total_seconds())
        try:
            await held.controllers.write_heard(at=held.now())
            await held.controllers.boots.write(held.database, held.wakeups, at=held.now())
        except Exception:
            log.exception("job failed name=write-heard")


async def _ring_missed(held: Runtime) -> None:
    """Look once a second for pending commands whose bell may have been missed."""
    while True:
        await asyncio.sleep(1)
        if not held.controllers.open_polls:
            continue
        try:
            async with held.database.read() as tx:
                waiting = await lookout.controllers_with_work(tx, clock=held.deadlines)
        except Exception:
            log.exception("job failed name=ring-missed")
            continue
        for controller_id in waiting:
            held.wakeups.ring(commands.topic_of(controller_id))


async def last_runs(tx: AsyncSession) -> dict[str, datetime]:
    """Say when each job last went well."""
    return {row.name: row.succeeded_at for row in await tx.scalars(sa.select(JobRun))}
