"""Settings from the environment, prefix `YIZHAN_`; frozen, passed, never global."""

import base64
import binascii
import re
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.db.engine import embedded_url


class Environment(StrEnum):
    """Where this runs."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Registration(StrEnum):
    """Who may register at a door."""

    OPEN = "open"
    LISTED = "listed"


class SmsSender(StrEnum):
    """How login codes leave the house."""

    FILE = "file"
    HTTP = "http"


HOST = re.compile(r"(?:[a-z0-9-]{1,63}\.)+[a-z][a-z0-9-]{0,62}(?::[1-9][0-9]{0,4})?")
"""A name, perhaps with a port; its last label begins with a letter, so that it is no address."""

EXAMPLE_SECRETS = frozenset({"", "change-me", "example", "secret", "AAAA" * 11})
"""Values that stand in documents; production refuses them."""


class Settings(BaseSettings):
    """Everything that differs between installations."""

    model_config = SettingsConfigDict(env_prefix="YIZHAN_", frozen=True, extra="ignore")

    environment: Environment = Environment.DEVELOPMENT
    """`production` refuses unsafe values at start."""
    data_dir: Path = Path("var")
    """Folder of the embedded database, the outbox and the development secret."""
    database_url: str = ""
    """Empty: SQLite in `DATA_DIR`; `postgresql+asyncpg://...`: many processes."""
    database_pool_size: int = Field(default=10, ge=2, le=200)
    """Connections per process."""
    public_url: str = "http://127.0.0.1:8000"
    """The address in every QR code, without a slash at the end."""
    secret_kek: SecretStr = SecretStr("")
    """Base64 of the 32 bytes that wrap every key; development makes them in `DATA_DIR/kek`."""
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Networks, separated by commas, whose `X-Forwarded-For` is believed."""
    registration: Registration = Registration.OPEN
    """`open`: anybody with a mobile number; `listed`: only numbers an administrator registered."""
    sms_sender: SmsSender = SmsSender.FILE
    """`file` writes to `DATA_DIR/outbox.jsonl`; `http` posts to `SMS_URL`."""
    sms_url: str = ""
    """Where the `http` sender posts `{phone, text}`."""
    sms_token: SecretStr = SecretStr("")
    """Bearer token of the `http` sender."""
    max_wait_s: int = Field(default=25, ge=1, le=60)
    """The longest that a waiting request is held, in seconds."""
    controller_silence_s: int = Field(default=75, ge=10, le=3600)
    """A controller that neither began nor ended a request for so long is offline."""
    poll_pause_ms: int = Field(default=0, ge=0, le=60_000)
    """`next_poll_ms`: a controller's pause before its next poll, half of it more or less."""
    retention_days: int = Field(default=180, ge=1, le=180)
    """After so many days a visit loses its worker; no longer than people consent to."""
    session_days: int = Field(default=30, ge=1, le=30)
    """How long a worker stays signed in."""
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts that webhooks may lead to, separated by commas; empty: none are sent."""
    docs_enabled: bool | None = None
    """`/docs` and `/openapi.json`; by default on in development and off in production."""

    limit_otp_phone_minute: int = Field(default=1, ge=1)
    """Codes sent to one number per minute."""
    limit_otp_phone_hour: int = Field(default=5, ge=1)
    """Codes sent to one number per hour."""
    limit_otp_phone_day: int = Field(default=10, ge=1)
    """Codes sent to one number per day."""
    limit_otp_door_hour: int = Field(default=20, ge=1)
    """Codes asked for at one door per hour."""
    limit_otp_network_hour: int = Field(default=300, ge=1)
    """Codes asked for from one network (/24 or /48) per hour; off in development."""
    limit_otp_tries: int = Field(default=5, ge=1)
    """Wrong codes per challenge."""
    limit_otp_failures_day: int = Field(default=10, ge=1)
    """Wrong codes per number and day, over all challenges, before answers are delayed."""
    limit_admin_failures: int = Field(default=10, ge=1)
    """Wrong administrator passwords per name and network in 15 minutes."""
    limit_scan_minute: int = Field(default=10, ge=1)
    """Scans of one worker per minute."""
    limit_doors_hour: int = Field(default=6, ge=1)
    """Different doors opened by one worker per hour."""
    limit_polls: int = Field(default=20_000, ge=1)
    """Waiting requests per process."""
    limit_body_bytes: int = Field(default=64 * 1024, ge=1024)
    """The largest request body; a station import may be a hundred times larger."""

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        return value

    @field_validator("webhook_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            parts = (part.strip().lower() for part in value.split(","))
            return tuple(part.removesuffix(":443") for part in parts if part)
        return value

    @field_validator("webhook_hosts")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not HOST.fullmatch(host):
                raise ValueError(f"WEBHOOK_HOSTS takes names such as hooks.example.org, not {host}")
        return value

    @field_validator("public_url")
    @classmethod
    def _bare_origin(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("PUBLIC_URL must look like https://example.org")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _safe_in_production(self) -> Self:
        if self.secret_kek.get_secret_value():
            self.kek()
        if self.sms_sender is SmsSender.HTTP and not self.sms_url:
            raise ValueError("SMS_SENDER=http needs SMS_URL")
        if self.environment is Environment.DEVELOPMENT:
            return self
        if self.secret_kek.get_secret_value() in EXAMPLE_SECRETS:
            raise ValueError("SECRET_KEK is missing or an example: openssl rand -base64 32")
        if not self.public_url.startswith("https://"):
            raise ValueError("PUBLIC_URL must begin with https:// in production")
        if any(":" in host for host in self.webhook_hosts):
            raise ValueError("WEBHOOK_HOSTS takes no other port than 443 in production")
        if self.sms_sender is SmsSender.FILE:
            raise ValueError("SMS_SENDER=file is for development; set SMS_SENDER=http and SMS_URL")
        return self

    def kek(self) -> bytes:
        """Give the 32 bytes of SECRET_KEK; raises ValueError when it is anything else."""
        try:
            key = base64.b64decode(self.secret_kek.get_secret_value(), validate=True)
        except binascii.Error as error:
            raise ValueError("SECRET_KEK is not base64") from error
        if len(key) != 32:
            raise ValueError("SECRET_KEK must be 32 bytes in base64: openssl rand -base64 32")
        if len(set(key)) < 8:
            raise ValueError("SECRET_KEK is an example; make one: openssl rand -base64 32")
        return key

    @property
    def effective_database_url(self) -> str:
        """The database's URL: DATABASE_URL, or SQLite in DATA_DIR."""
        return self.database_url or embedded_url(self.data_dir / "yizhan.db")

    @property
    def is_production(self) -> bool:
        """Whether unsafe conveniences are off."""
        return self.environment is Environment.PRODUCTION

    @property
    def serves_docs(self) -> bool:
        """Whether `/docs` answers."""
        return not self.is_production if self.docs_enabled is None else self.docs_enabled

    @property
    def secure_cookies(self) -> bool:
        """Whether the page's cookie is `__Host-yizhan` with Secure."""
        return self.public_url.startswith("https://")
