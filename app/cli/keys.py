"""Signing keys: list, rotate, retire."""

from typing import Annotated, Any

import typer
from rich.table import Table

from app.audit import COMMAND_LINE
from app.cli.shell import out, run
from app.doors import keys
from app.doors.tokens import TokenKind
from app.runtime import Runtime


def list_keys() -> None:
    """List the signing keys."""

    async def act(held: Runtime) -> Any:
        async with held.database.read() as tx:
            return await keys.list_keys(tx)

    table = Table("kid", "kind", "state", "created", "changed")
    for key in run(act, writes=False):
        table.add_row(
            key.kid,
            key.kind.value,
            key.state.value,
            key.created_at.isoformat(timespec="seconds"),
            key.changed_at.isoformat(timespec="seconds"),
        )
    out.print(table)


def rotate_key(
    kind: Annotated[TokenKind, typer.Option(help="Which kind of token.")],
    emergency: Annotated[
        bool, typer.Option("--emergency", help="The key leaked: no wait, the old one dies.")
    ] = False,
) -> None:
    """Publish a new key, or let a published one sign."""

    async def act(held: Runtime) -> tuple[str, str]:
        async with held.database.write() as tx:
            key = await keys.rotate(
                tx,
                held.vault,
                held.wakeups,
                kind,
                actor=COMMAND_LINE,
                at=held.now(),
                emergency=emergency,
            )
            await tx.refresh(key)
            return key.kid, key.state.value

    kid, state = run(act)
    out.print(f"key {kid} of kind {kind.value} is {state}")


def retire_key(
    kid: Annotated[str, typer.Argument(help="The key, as `key list` names it.")],
    emergency: Annotated[bool, typer.Option("--emergency", help="It leaked: at once.")] = False,
) -> None:
    """Destroy a key that no good token can carry any more."""

    async def act(held: Runtime) -> None:
        async with held.database.write() as tx:
            await keys.retire(
                tx,
                held.wakeups,
                kid,
                actor=COMMAND_LINE,
                at=held.now(),
                emergency=emergency,
            )

    run(act)
    out.print(f"key {kid} is retired")
