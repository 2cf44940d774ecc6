"""python -m app: the same as the command `yizhan`."""

from app.cli import app

app()
