"""The suite's own PostgreSQL: real, durable, closed to others, and gone afterwards."""

import functools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.support.postgres import PostgresFailed, PostgresServer, installation, running_postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


async def _ask(server: PostgresServer, sql: str, database: str = "postgres") -> object:
    connection = await asyncpg.connect(server.dsn(database))
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_it_is_postgresql_18_set_up_as_in_production(server: PostgresServer) -> None:
    names = (
        "server_encoding",
        "TimeZone",
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "max_connections",
        "listen_addresses",
        "unix_socket_directories",
    )
    shown = {name: await _ask(server, f"SHOW {name}") for name in names}
    version = int(str(await _ask(server, "SHOW server_version_num")))
    assert version // 10_000 == 18
    assert shown == {
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "max_connections": "200",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
    }


async def test_text_compares_byte_by_byte(server: PostgresServer) -> None:
    assert await _ask(server, "SELECT 'Z' < 'a' AND 'a' < '渝'") is True


async def test_nobody_gets_in_without_the_password(server: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.dsn().replace(server.password, "postgres"))


async def test_a_template_is_copied_and_the_copy_dropped(server: PostgresServer) -> None:
    server.create_database("template")
    server.execute("CREATE TABLE stations AS SELECT 7 AS id", database="template")
    server.create_database("copy", template="template")
    assert await _ask(server, "SELECT id FROM stations", "copy") == 7
    server.drop_database("copy")
    server.drop_database("copy")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await _ask(server, "SELECT 1", "copy")


async def test_a_bad_statement_says_why(server: PostgresServer) -> None:
    with pytest.raises(PostgresFailed, match="syntax error"):
        server.execute("SELEC 1")


@pytest.mark.parametrize("end", ["stop", "kill", "crash"])
async def test_what_was_committed_is_there_after_a_stop_and_a_crash(
    server: PostgresServer, end: str
) -> None:
    server.create_database(end)
    server.execute("CREATE TABLE kept AS SELECT 42 AS answer", database=end)
    port = server.port
    if end == "crash":
        # Somebody else kills it: nobody waits for its children, and the next start must cope.
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert server.process is not None
        server.process.wait()
    else:
        getattr(server, end)()
    with pytest.raises(OSError, match="Connect call failed"):
        await _ask(server, "SELECT 1")
    server.start()
    assert server.port == port
    assert await _ask(server, "SELECT answer FROM kept", end) == 42


def test_it_leaves_no_process_and_no_folder() -> None:
    with running_postgres(durable=False) as server:
        process = psutil.Process(server.pid)
        family = [process, *process.children(recursive=True)]
        assert server.execute("SHOW fsync") == "off"
        assert server.home.is_dir()
        assert process.uids().effective != 0
        assert os.stat(server.home).st_mode & 0o777 == 0o700
    assert [one for one in family if one.is_running()] == []
    assert not server.home.exists()


def test_it_is_gone_when_an_error_ends_the_block() -> None:
    seen: list[PostgresServer] = []

    def fail() -> None:
        with running_postgres(durable=False) as server:
            seen.append(server)
            assert server.pid is not None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(server.pid, server.home.exists()) for server in seen] == [(None, False)]


def test_a_bad_setting_is_explained_with_the_log() -> None:
    wrong = {"max_connections": "many"}
    with pytest.raises(PostgresFailed, match="max_connections"), running_postgres(settings=wrong):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_goes_with_the_process_that_started_it(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.support.postgres", "--no-fsync"]
    # A shell starts what it puts in the background with SIGINT ignored, and the suite with it.
    heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heeds) as starter:
        assert starter.stdout is not None
        url = starter.stdout.readline()
        assert url.startswith("postgresql+asyncpg://postgres:")
        ours = psutil.Process(starter.pid).children(recursive=True)
        home = next(Path(one.cwd()) for one in ours if one.name() == "postgres")
        starter.send_signal(number)
        starter.wait()
    _, alive = psutil.wait_procs(ours, timeout=20)
    assert alive == []
    deadline = time.monotonic() + 20
    while home.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close a folder to `nobody`")
def test_binaries_in_a_closed_folder_are_copied_beside_the_data(tmp_path: Path) -> None:
    wheel = installation()
    assert wheel is not None
    tmp_path.chmod(0o700)
    closed = tmp_path / wheel.parent.name / wheel.name
    shutil.copytree(wheel, closed, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = wheel.parent.with_name(wheel.parent.name + ".libs")
    shutil.copytree(libraries, tmp_path / libraries.name)
    with running_postgres(durable=False, package=closed) as server:
        assert server.home in server.binaries.parents
        assert server.execute("SELECT 1") == "1"
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test runs as an ordinary user already")
def test_it_runs_for_an_ordinary_user_too() -> None:
    nobody = pwd.getpwnam("nobody")
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads; the child below uses none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            with running_postgres(durable=False) as server:
                code = 0 if server.execute("SELECT 1") == "1" else 2
            code = code or (3 if server.home.exists() else 0)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
