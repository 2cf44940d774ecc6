"""Periodic work, by hand."""

from typing import Annotated

import typer

from app import jobs
from app.cli.shell import err, out, run
from app.runtime import Runtime


def run_job(
    name: Annotated[str, typer.Argument(help=", ".join(job.name for job in jobs.JOBS))],
) -> None:
    """Run a job once, now."""
    job = jobs.find(name)
    if job is None:
        err.print(
            f"refused: no job is called {name}; there are "
            + ", ".join(job.name for job in jobs.JOBS)
        )
        raise typer.Exit(2)

    async def act(held: Runtime) -> None:
        await jobs.run_once(held, job)

    run(act)
    out.print(f"{name}: done")
