"""The A4 sheet that hangs at a door: a large code, and in clear text where it must lead."""

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fpdf import FPDF
from fpdf.enums import TextMode
from fpdf.fonts import TTFFont

from app.doors import qr, typeface

CODE_WIDTH_MM = 100.0
"""Width of the code without its quiet zone: 1.7 mm a module, good from more than a metre."""

_PAGE_WIDTH, _PAGE_HEIGHT, _MARGIN = 210.0, 297.0, 16.0
_WIDTH = _PAGE_WIDTH - 2 * _MARGIN
_POINT = 25.4 / 72
_LEADING = 1.25
"""Distance of baselines, in heights of the type."""
_CODE_SCALE = 20
"""Pixels of a module; at this size no printer blurs an edge."""

_RED, _INK, _GREY, _TINT = (178, 24, 32), (28, 30, 34), (98, 104, 112), (252, 242, 240)
_WHITE = (255, 255, 255)

Colour = tuple[int, int, int]
Align = Literal["left", "centre", "right"]

_KICKER = "工会驿站 · Workers' rest station"
_HEADLINE = ("扫码开门", "Scan to open")
_CODE_LABEL, _DOOR_LABEL = "编号 Code", "门 Door"
_DOMAIN_LABEL = ("请认准网址", "The real page is only at")
_DOMAIN_WARNING = (
    "网址不是这个，就是假的：请勿输入手机号和验证码。",
    "At any other address, enter neither your phone number nor a code.",
)
_STEPS = (
    ("用微信或相机扫描二维码", "Scan the code with WeChat or your camera"),
    ("首次使用，用手机号登录", "The first time, sign in with your phone number"),
    ("页面显示“门已开”后进门", "Go in when the page says that the door is open"),
)
_REPORT = (
    "二维码破损、被涂改或被贴纸覆盖？请不要扫，并告诉驿站工作人员。",
    "Code damaged or pasted over? Do not scan it; please report it to the station's staff.",
)
_WORDS = "".join(
    [_KICKER, *_HEADLINE, _CODE_LABEL, _DOOR_LABEL, *_DOMAIN_LABEL, *_DOMAIN_WARNING]
    + [part for step in _STEPS for part in step]
    + [*_REPORT, "0123456789"]
)


@dataclass(frozen=True, slots=True)
class _Box:
    """A rectangle on the sheet, in millimetres from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


def poster_pdf(
    *, url: str, station_name: str, station_code: str, door_name: str, domain: str
) -> bytes:
    """Draw the sheet of one door as a PDF of one A4 page with its font embedded.

    Names of any length fit: they wrap, then shrink. The domain and the station's code stand in
    clear text, because a sticker over the code can lead anywhere (promises T04).
    """
    with _sheet(_WORDS + station_name + station_code + door_name + domain) as sheet:
        sheet.pdf.set_title(f"{_HEADLINE[0]} {station_code} {door_name}")
        _headline(sheet)
        _station(sheet, station_name, station_code, door_name)
        _code(sheet, url)
        _domain(sheet, domain)
        for number, step in enumerate(_STEPS):
            _step(sheet, number, *step)
        _report(sheet)
        return bytes(sheet.pdf.output())


def _headline(sheet: "_Sheet") -> None:
    sheet.fill(_Box(0, 0, _PAGE_WIDTH, 54), _RED)
    sheet.line(_KICKER, _MARGIN, 15.5, 12, _WHITE)
    chinese, english = _HEADLINE
    width = sheet.line(chinese, _MARGIN - 1, 42, 68, _WHITE, is_bold=True)
    sheet.line(english, _MARGIN + width + 6, 42, 25, _WHITE)


def _station(sheet: "_Sheet", name: str, code: str, door: str) -> None:
    sheet.block(name, _Box(_MARGIN, 60, _WIDTH, 17), 30, _INK, is_bold=True)
    x = _MARGIN
    for label, value, width in ((_CODE_LABEL, code, 62.0), (_DOOR_LABEL, door, 116.0)):
        used = sheet.line(label, x, 85.1, 9.5, _GREY)
        box = _Box(x + used + 2.5, 79.5, width - used - 6, 8)
        x += used + 2.5 + sheet.block(value, box, 14, _INK, is_bold=True) + 10


def _code(sheet: "_Sheet", url: str) -> None:
    modules = len(qr.matrix(url))
    side = CODE_WIDTH_MM * modules / (modules - 2 * qr.QUIET_ZONE)
    box = _Box((_PAGE_WIDTH - side) / 2, 92.5, side, side)
    picture = io.BytesIO(qr.png(url, scale=_CODE_SCALE))
    sheet.pdf.image(picture, x=box.x, y=box.y, w=side, h=side)
    sheet.corners(box, _RED)


def _domain(sheet: "_Sheet", domain: str) -> None:
    box = _Box(_MARGIN, 217.5, _WIDTH, 27)
    sheet.fill(box, _TINT, radius=3)
    sheet.line(_DOMAIN_LABEL[0], box.x + 6, 226, 13, _RED, is_bold=True)
    sheet.line(_DOMAIN_LABEL[1], box.x + 6, 231.5, 9.5, _RED)
    name = _Box(box.x + 52, 219.5, box.width - 58, 13.5)
    sheet.block(domain, name, 28, _INK, is_bold=True)
    sheet.line(_DOMAIN_WARNING[0], box.x + 6, 240, 9.5, _INK)
    right = box.x + box.width - 6
    sheet.line(_DOMAIN_WARNING[1], right, 240, 7.5, _GREY, align="right")


def _step(sheet: "_Sheet", number: int, chinese: str, english: str) -> None:
    width = _WIDTH / len(_STEPS)
    x = _MARGIN + number * width
    sheet.disc(x + 4.5, 257, 4.5, _RED)
    sheet.line(str(number + 1), x + 4.5, 259.4, 16, _WHITE, is_bold=True, align="centre")
    sheet.block(chinese, _Box(x + 12, 252, width - 14, 5.5), 10.5, _INK, is_bold=True)
    sheet.block(english, _Box(x + 12, 258.5, width - 14, 9), 8.5, _GREY)


def _report(sheet: "_Sheet") -> None:
    sheet.fill(_Box(_MARGIN, 273, _WIDTH, 0.3), _GREY)
    sheet.line(_REPORT[0], _MARGIN, 280, 10.5, _INK)
    sheet.line(_REPORT[1], _MARGIN, 285.5, 8.5, _GREY)


@contextmanager
def _sheet(characters: str) -> Iterator["_Sheet"]:
    """Open an empty page with a font of these characters; fpdf2 takes fonts from files only."""
    pdf = FPDF(format="A4")
    pdf.set_auto_page_break(False)
    pdf.set_lang("zh-CN")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sheet.ttf"
        path.write_bytes(typeface.subset(characters))
        pdf.add_font(_Sheet.FONT, fname=path)
        font = pdf.fonts[_Sheet.FONT]
        assert isinstance(font, TTFFont)
        pdf.add_page()
        try:
            yield _Sheet(pdf)
        finally:
            font.ttfont.close()


class _Sheet:
    """A page to write and draw on; sizes of type in points, the rest in millimetres."""

    FONT = "sheet"

    def __init__(self, pdf: FPDF) -> None:
        self.pdf = pdf
        self.pdf.set_font(self.FONT)

    def fill(self, box: _Box, colour: Colour, *, radius: float = 0) -> None:
        """Fill a rectangle."""
        self.pdf.set_fill_color(*colour)
        self.pdf.rect(
            box.x,
            box.y,
            box.width,
            box.height,
            style="F",
            round_corners=radius > 0,
            corner_radius=radius,
        )

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle around a point."""
        self.pdf.set_fill_color(*colour)
        self.pdf.circle(x, y, radius, style="F")

    def corners(self, box: _Box, colour: Colour) -> None:
        """Mark the corners of a box, as a camera's finder does."""
        self.pdf.set_draw_color(*colour)
        self.pdf.set_line_width(1.2)
        arm = 12.0
        right, bottom = box.x + box.width, box.y + box.height
        for x, inwards in ((box.x, arm), (right, -arm)):
            for y, down in ((box.y, arm), (bottom, -arm)):
                self.pdf.polyline([(x + inwards, y), (x, y), (x, y + down)])

    def line(
        self,
        text: str,
        x: float,
        baseline: float,
        size: float,
        colour: Colour,
        *,
        is_bold: bool = False,
        align: Align = "left",
    ) -> float:
        """Write one line and give its width."""
        width = self.width(text, size)
        x -= {"left": 0.0, "centre": width / 2, "right": width}[align]
        self.pdf.set_font(self.FONT, size=size)
        self.pdf.set_text_color(*colour)
        # The typeface comes in one weight; an outline of its own colour makes the bold one.
        self.pdf.text_mode = TextMode.FILL_STROKE if is_bold else TextMode.FILL
        self.pdf.set_draw_color(*colour)
        self.pdf.set_line_width(size * 0.028)
        self.pdf.text(x, baseline, text)
        return width

    def block(
        self, text: str, box: _Box, largest: float, colour: Colour, *, is_bold: bool = False
    ) -> float:
        """Write a text as large as it fits into a box, in the middle of its height.

        Gives the width that it takes.
        """
        size = largest
        while size > 1 and self.height(text, box.width, size) > box.height:
            size -= 0.5
        lines = self.balanced(text, box.width, size)
        step = size * _POINT * _LEADING
        # The middle of a Chinese character lies 0.38 of its height above the baseline.
        first = box.y + box.height / 2 - step * (len(lines) - 1) / 2 + size * _POINT * 0.38
        for number, part in enumerate(lines):
            self.line(part, box.x, first + number * step, size, colour, is_bold=is_bold)
        return max(self.width(part, size) for part in lines)

    def height(self, text: str, width: float, size: float) -> float:
        """Measure how high a text stands when it is broken into lines."""
        below_first = (len(self._greedy(text, width, size)) - 1) * _LEADING
        return (1 + below_first) * size * _POINT

    def balanced(self, text: str, width: float, size: float) -> list[str]:
        """Break a text into lines of about equal length, between words and Chinese characters."""
        broken = self._greedy(text, width, size)
        narrower = width
        while len(broken) > 1 and narrower > width / 2:
            narrower -= width / 40
            attempt = self._greedy(text, narrower, size)
            if len(attempt) > len(broken):
                break
            broken = attempt
        return broken

    def width(self, text: str, size: float) -> float:
        """Measure a line."""
        return self.pdf.get_string_width(text) * size / self.pdf.font_size_pt

    def _greedy(self, text: str, width: float, size: float) -> list[str]:
        lines = [""]
        for word in self._words(text, width, size):
            if lines[-1] and self.width((lines[-1] + word).rstrip(), size) > width:
                lines.append("")
            lines[-1] += word
        return [line.strip() for line in lines]

    def _words(self, text: str, width: float, size: float) -> Iterator[str]:
        """Cut where a line may break: after a space, and around every Chinese character."""
        # A closing mark stays with the character before it.
        for word in re.findall(r"[!-~]+ *|.[，。、；：？！）》】”]*", text) or [""]:
            if self.width(word.rstrip(), size) <= width:
                yield word
            else:
                yield from word
