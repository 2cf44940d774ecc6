"""The square codes themselves: from a token to an address to something a phone can scan."""

import io
from functools import lru_cache

QUIET_ZONE = 4
"""Light modules around the code; the standard (ISO/IEC 18004) asks for four."""

_WHITE_ON_BLACK = "\x1b[38;5;231;48;5;16m"
_RESET = "\x1b[0m"

Matrix = tuple[tuple[bool, ...], ...]
"""Rows of modules with the quiet zone; True is dark."""


def door_url(public_url: str, token: str) -> str:
    """Give the address that a door's code holds."""
    return f"{public_url.rstrip('/')}/s/{token}"


@lru_cache(maxsize=64)
def matrix(url: str) -> Matrix:
    """Lay out the modules at error level M, so that a scratch does not lock anybody out."""
    import qrcode  # Here: most processes never draw one.

    code = qrcode.QRCode(error_correction=qrcode.ERROR_CORRECT_M, border=QUIET_ZONE)
    code.add_data(url)
    code.make(fit=True)
    return tuple(tuple(bool(module) for module in row) for row in code.get_matrix())


def svg(url: str) -> str:
    """Draw the code as one path, one unit per module; it carries no text."""
    modules = matrix(url)
    size = len(modules)
    path = "".join(
        f"M{start} {y}h{end - start}v1H{start}z"
        for y, row in enumerate(modules)
        for start, end in _runs(row)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" '
        'shape-rendering="crispEdges">'
        f'<path fill="#fff" d="M0 0h{size}v{size}H0z"/><path fill="#000" d="{path}"/></svg>'
    )


def png(url: str, *, scale: int) -> bytes:
    """Draw the code in black and white, `scale` pixels per module; raises ValueError below 1."""
    if scale < 1:
        raise ValueError("a module has at least one pixel")
    from PIL import Image

    modules = matrix(url)
    size = len(modules)
    image = Image.new("1", (size, size), color=1)
    for y, row in enumerate(modules):
        for x, is_dark in enumerate(row):
            if is_dark:
                image.putpixel((x, y), 0)
    drawn = io.BytesIO()
    large = image.resize((size * scale, size * scale), Image.Resampling.NEAREST)
    large.save(drawn, format="PNG", optimize=True)
    return drawn.getvalue()


def terminal(url: str) -> str:
    """Draw the code in half blocks, two modules to a character.

    Light modules are the blocks and both colours are named, from the part of the palette that no
    theme redefines, so it scans on a dark and on a light terminal. Where the colours get lost, as
    in a log, it still scans on a dark one.
    """
    modules = matrix(url)
    beyond = (False,) * len(modules)
    lines = []
    for y in range(0, len(modules), 2):
        upper = modules[y]
        lower = modules[y + 1] if y + 1 < len(modules) else beyond
        blocks = "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        lines.append(f"{_WHITE_ON_BLACK}{blocks}{_RESET}")
    return "\n".join(lines) + "\n"


_BLOCKS = {
    (False, False): "\N{FULL BLOCK}",
    (False, True): "\N{UPPER HALF BLOCK}",
    (True, False): "\N{LOWER HALF BLOCK}",
    (True, True): " ",
}


def _runs(row: tuple[bool, ...]) -> list[tuple[int, int]]:
    """Give where dark modules begin and end in a row."""
    runs = []
    start = None
    for x, is_dark in enumerate((*row, False)):
        if is_dark and start is None:
            start = x
        elif not is_dark and start is not None:
            runs.append((start, x))
            start = None
    return runs
