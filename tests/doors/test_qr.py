"""Codes are read back by a real decoder, from every form we draw them in."""

import io
import re
import xml.etree.ElementTree as ET

import pytest
import zxingcpp
from PIL import Image

from app.doors import qr
from app.doors.tokens import TokenKind, generate_key, sign_poster

TOKEN = sign_poster(generate_key(TokenKind.POSTER), door="k7m2p9qa", generation=3)
URL = qr.door_url("https://yizhan.example.cn", TOKEN)
SVG = "{http://www.w3.org/2000/svg}"
URLS = [URL, "http://192.168.1.20:8000/s/x", qr.door_url("https://a.cn", "x" * 400)]


def read(image: Image.Image) -> str:
    """Read it as the strictest reader does, which takes no code with its colours swapped."""
    (found,) = zxingcpp.read_barcodes(image, zxingcpp.BarcodeFormat.QRCode, try_invert=False)
    return found.text


def test_the_address_has_one_slash_between_its_parts() -> None:
    assert qr.door_url("https://a.cn/", "tok") == qr.door_url("https://a.cn", "tok")
    assert qr.door_url("https://a.cn", "tok") == "https://a.cn/s/tok"


def test_a_poster_stays_small_enough_to_print() -> None:
    assert len(qr.matrix(URL)) <= 57 + 2 * qr.QUIET_ZONE


@pytest.mark.parametrize("url", URLS)
def test_the_quiet_zone_is_light(url: str) -> None:
    modules = qr.matrix(url)
    for side in (modules, tuple(zip(*modules, strict=True))):
        for line in side[: qr.QUIET_ZONE] + side[-qr.QUIET_ZONE :]:
            assert not any(line)
        assert any(side[qr.QUIET_ZONE])


@pytest.mark.parametrize("url", URLS)
def test_the_svg_reads_back(url: str) -> None:
    root = ET.fromstring(qr.svg(url))
    left, top, width, height = (int(value) for value in root.attrib["viewBox"].split())
    assert (root.tag, left, top, width) == (f"{SVG}svg", 0, 0, height)
    assert root.attrib["shape-rendering"] == "crispEdges"
    image = Image.new("RGB", (width * 4, height * 4), "grey")
    for path in root:
        assert path.tag == f"{SVG}path"
        assert not path.text
        for box in boxes(path.attrib["d"]):
            image.paste(path.attrib["fill"], tuple(side * 4 for side in box))
    assert read(image) == url


def boxes(path: str) -> list[tuple[int, int, int, int]]:
    """Read a path that consists of rectangles only, and of nothing else."""
    shape = r"M(\d+) (\d+)h(\d+)v(\d+)H(\d+)z"
    assert re.fullmatch(f"({shape})+", path)
    found = []
    for x, y, width, height, back in (map(int, part) for part in re.findall(shape, path)):
        assert back == x
        found.append((x, y, x + width, y + height))
    return found


def test_the_svg_holds_no_text_of_anybody() -> None:
    assert "x" * 20 not in qr.svg(URLS[2])
    assert qr.svg("https://a.cn/s/<script>&\"'").count("<") == 4


@pytest.mark.parametrize("scale", [1, 3, 12])
@pytest.mark.parametrize("url", URLS)
def test_the_png_reads_back(url: str, scale: int) -> None:
    with Image.open(io.BytesIO(qr.png(url, scale=scale))) as image:
        assert image.format == "PNG"
        assert image.size == (len(qr.matrix(url)) * scale,) * 2
        assert read(image.convert("L")) == url


@pytest.mark.parametrize("scale", [0, -1])
def test_a_png_without_pixels_is_refused(scale: int) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        qr.png(URL, scale=scale)


@pytest.mark.parametrize("around", ["black", "white"])
@pytest.mark.parametrize("url", URLS)
def test_the_terminal_drawing_reads_back_on_dark_and_on_light(url: str, around: str) -> None:
    assert read(screenshot(qr.terminal(url), around=around)) == url


def test_without_its_colours_the_drawing_reads_back_on_a_dark_terminal() -> None:
    plain = re.sub(r"\x1b\[[\d;]*m", "", qr.terminal(URL))
    assert read(screenshot(plain, around="black")) == URL


def test_the_drawing_fits_eighty_columns() -> None:
    plain = re.sub(r"\x1b\[[\d;]*m", "", qr.terminal(URL))
    assert max(map(len, plain.splitlines())) <= 80


def screenshot(drawing: str, *, around: str) -> Image.Image:
    """Show a drawing as a terminal would: its own colours, and the theme's where it names none."""
    palette = {"16": "black", "231": "white"}
    theme = (around, "white" if around == "black" else "black")
    lines = drawing.splitlines()
    width = max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines)
    image = Image.new("RGB", ((width + 8) * 4, (len(lines) + 4) * 8), around)
    for row, line in enumerate(lines):
        x, y = 16, (row + 2) * 8
        back, fore = theme
        for colours, character in re.findall(r"\x1b\[([\d;]*)m|([^\x1b])", line):
            if colours == "0":
                back, fore = theme
            elif colours:
                named = re.fullmatch(r"38;5;(\d+);48;5;(\d+)", colours)
                assert named
                fore, back = palette[named[1]], palette[named[2]]
            else:
                upper, lower = {"█": (1, 1), "▀": (1, 0), "▄": (0, 1), " ": (0, 0)}[character]
                image.paste(fore if upper else back, (x, y, x + 4, y + 4))
                image.paste(fore if lower else back, (x, y + 4, x + 4, y + 8))
                x += 4
    return image
