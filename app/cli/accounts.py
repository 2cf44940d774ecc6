"""Administrators' accounts."""

from typing import Annotated

import typer

from app.audit import COMMAND_LINE
from app.cli.places import unit_id_of
from app.cli.shell import out, password_from, run
from app.people import admins
from app.people.rules import Role
from app.runtime import Runtime


def create_admin(
    username: Annotated[str, typer.Option(help="Name to sign in with.")],
    role: Annotated[Role, typer.Option(help="What the account may do.")],
    unit: Annotated[str | None, typer.Option(help="Name or path of the branch.")] = None,
    totp: Annotated[bool, typer.Option("--totp", help="With a second factor.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Create an administrator."""
    password = password_from(password_stdin, confirm=True)

    async def act(held: Runtime) -> str | None:
        password_hash = await admins.hash_password(password)
        async with held.database.write() as tx:
            unit_id = await unit_id_of(tx, unit)
            created = await admins.create(
                tx,
                admins.NewAdmin(
                    username=username, password_hash=password_hash, role=role, unit_id=unit_id
                ),
                vault=held.vault,
                actor=COMMAND_LINE,
                at=held.now(),
                with_totp=totp or (held.settings.is_production and role in admins.NEEDS_TOTP),
            )
            return created.totp_uri

    uri = run(act)
    out.print(f"created {role.value} {username}")
    if uri:
        out.print(f"second factor: {uri}", soft_wrap=True)
