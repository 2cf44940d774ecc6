"""What one server process holds: the database, its clocks and bells, keys and caches."""

import asyncio
import uuid
from dataclasses import dataclass

from app.alerts.webhooks.courier import Courier
from app.clock import Monotonic, Now
from app.db.clock import DeadlineClock
from app.db.engine import Database
from app.db.gathered import Gathered
from app.db.wakeups import LocalWakeups
from app.doors.config import Config
from app.doors.desk import ControllerDesk
from app.doors.effects import Effects
from app.doors.keys import KeyRing
from app.doors.line import Line
from app.doors.lookout import Outlook
from app.doors.scans import ScanDesk
from app.feed.files import Feed
from app.people.sms import SmsSender
from app.places.calendar import CalendarCache
from app.settings import Settings
from app.vault import Vault


@dataclass(frozen=True, slots=True)
class Runtime:
    """Made once by `create_app`; handlers and jobs take from it what their operation needs."""

    settings: Settings
    database: Database
    wakeups: LocalWakeups
    vault: Vault
    now: Now
    monotonic: Monotonic
    deadlines: DeadlineClock
    calendar: CalendarCache
    """Day classes, in memory, reloaded on a bell."""
    keys: KeyRing
    """Signing and verifying keys, in memory, reloaded on a bell."""
    controllers: ControllerDesk
    """Who the controllers are and when they were last heard, in memory."""
    lookout: Gathered[uuid.UUID, Outlook]
    """Reads for the polls what there is to do."""
    configs: Gathered[uuid.UUID, Config]
    """Reads what the controllers of a station work by."""
    scans: ScanDesk
    """What a scan needs beside its transaction."""
    uploads: Line
    """Where uploads of journals wait, so that claims do not wait behind them."""
    effects: Effects
    """Who writes what the events of journals cause, once they are taken in."""
    press: asyncio.Semaphore
    """Held while a sheet is drawn: one at a time, in a process of its own."""
    rehearsal: asyncio.Semaphore
    """Held while a what-if is replayed: one at a time, so that doors have the processor."""
    feed: Feed
    """The public feed's files, in memory; built once a period, for all processes."""
    sms: SmsSender
    courier: Courier
    """Carries webhooks out of the house."""
    stopping: asyncio.Event
    """Set when the process was asked to stop: waiting requests end."""
    started_at: float
    """The monotonic instant at which this process began to serve."""
