"""Count what was written: reports say what the last counting found."""

from app import jobs
from app.runtime import Runtime


async def rolled(held: Runtime) -> None:
    """Count anew whatever changed, as the job does every minute."""
    job = jobs.find("roll-up")
    assert job is not None
    await jobs.run_once(held, job)
