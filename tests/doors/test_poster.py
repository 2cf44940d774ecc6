"""The sheet at the door: what it says, what its code holds, and that nothing overlaps."""

import io
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest
import zxingcpp
from fontTools.ttLib import TTFont
from pypdf import PageObject, PdfReader

from app.doors import qr
from app.doors.poster import CODE_WIDTH_MM, poster_pdf
from app.doors.tokens import TokenKind, generate_key, sign_poster
from app.doors.typeface import font_path, subset

DOMAIN = "yizhan.example.cn"
TOKEN = sign_poster(generate_key(TokenKind.POSTER), door="k7m2p9qa", generation=1)
URL = qr.door_url(f"https://{DOMAIN}", TOKEN)
NAME = "渝中区解放碑劳动者驿站"
LONG = (
    "重庆市总工会两江新区金开大道互联网产业园三期快递员外卖骑手货车司机"
    "户外劳动者二十四小时智慧综合服务驿站（以商养站示范点）第一分"
)
POINT_MM = 25.4 / 72


def page(**changes: str) -> PageObject:
    wanted = {
        "url": URL,
        "station_name": NAME,
        "station_code": "YZ-0012",
        "door_name": "正门",
        "domain": DOMAIN,
    } | changes
    pdf = poster_pdf(**wanted)
    assert len(pdf) < 100_000
    (only,) = PdfReader(io.BytesIO(pdf)).pages
    return only


@dataclass(frozen=True)
class Line:
    """One line of text; its baseline is measured from the foot of the sheet, in points."""

    text: str
    x: float
    baseline: float
    size: float
    right: float


def lines(sheet: PageObject) -> list[Line]:
    found: list[tuple[str, float, float, float]] = []

    def visit(text: str, _: Any, matrix: list[float], __: Any, size: float) -> None:
        if text.strip():
            found.append((text.strip(), matrix[4], matrix[5], size))

    sheet.extract_text(visitor_text=visit)
    with TTFont(io.BytesIO(subset("".join(text for text, *_ in found)))) as font:
        glyphs, advances = font.getBestCmap(), font["hmtx"]

        def width(text: str) -> float:
            return sum(advances[glyphs[ord(c)]][0] for c in text) / 1000

        return [Line(text, x, y, size, x + width(text) * size) for text, x, y, size in found]


def test_the_sheet_is_a4() -> None:
    box = page().mediabox
    assert (round(box.width * POINT_MM), round(box.height * POINT_MM)) == (210, 297)


def test_the_sheet_says_in_clear_text_where_the_code_leads() -> None:
    said = [line.text for line in lines(page())]
    for wanted in ("扫码开门", "Scan to open", NAME, "YZ-0012", "正门", "请认准网址", DOMAIN):
        assert wanted in said


def test_the_sheet_warns_of_other_addresses_and_asks_for_reports_of_damage() -> None:
    text = page().extract_text()
    assert "请勿输入手机号和验证码" in text
    assert "enter neither your phone number nor a code" in text
    assert "被贴纸覆盖" in text
    assert "Code damaged or pasted over?" in text


def test_the_code_reads_back_from_the_page() -> None:
    (picture,) = page().images
    (found,) = zxingcpp.read_barcodes(picture.image.convert("L"), zxingcpp.BarcodeFormat.QRCode)
    assert found.text == URL


@pytest.mark.parametrize("url", [URL, "http://a.cn/s/x", URL + "x" * 300])
def test_the_code_is_ten_centimetres_wide_however_much_it_holds(url: str) -> None:
    modules = len(qr.matrix(url))
    sheet = page(url=url)
    (drawn,) = [operation for operation in content(sheet) if operation.endswith(b"/I1 Do")]
    width_mm = float(drawn.split()[1]) * POINT_MM
    assert CODE_WIDTH_MM >= 100
    assert width_mm * (modules - 2 * qr.QUIET_ZONE) / modules == pytest.approx(
        CODE_WIDTH_MM, abs=0.1
    )


def content(sheet: PageObject) -> list[bytes]:
    contents = sheet.get_contents()
    assert contents is not None
    return [line.removesuffix(b" Q") for line in contents.get_data().splitlines()]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"station_name": LONG},
        {"station_name": "站" * 200, "door_name": "门" * 200, "station_code": "C" * 64},
        {"station_name": "Workers rest station of Jiefangbei " * 5, "domain": "10.0.0.1:8000"},
        {"station_name": "驿", "domain": "a-very-long-label." * 6 + "example.cn"},
        {"station_name": "W" * 200},
    ],
    ids=["usual", "60", "200", "words", "domain", "one word"],
)
def test_names_of_any_length_stay_on_the_sheet_and_apart(changes: dict[str, str]) -> None:
    found = lines(page(**changes))
    wanted = {"station_name": NAME, "door_name": "正门", "domain": DOMAIN} | changes
    everything = "".join(line.text for line in found).replace(" ", "")
    for value in wanted.values():
        assert value.replace(" ", "") in everything
    for line in found:
        assert line.x >= 12 / POINT_MM
        assert line.right <= (210 - 12) / POINT_MM
    for one, other in combinations(found, 2):
        if one.x < other.right and other.x < one.right:
            upper, lower = sorted((one, other), key=lambda line: -line.baseline)
            foot, top = upper.baseline - upper.size * 0.1, lower.baseline + lower.size * 0.85
            assert foot >= top or upper.baseline == lower.baseline, (one, other)


def test_sixty_characters_are_still_large() -> None:
    assert len(LONG) > 60
    of_name = [line for line in lines(page(station_name=LONG)) if line.text in LONG]
    assert len(of_name) == 2
    assert min(line.size for line in of_name) >= 14
    assert abs(len(of_name[0].text) - len(of_name[1].text)) <= 2


def test_the_font_is_embedded_as_a_subset() -> None:
    fonts = page()["/Resources"]["/Font"]  # type: ignore[index]
    (font,) = fonts.values()
    descendant = font.get_object()["/DescendantFonts"][0].get_object()
    embedded = descendant["/FontDescriptor"].get_object()["/FontFile2"].get_object().get_data()
    assert font.get_object()["/BaseFont"].startswith("/MPDFAA+")
    assert len(embedded) < 100_000


def test_a_character_without_a_glyph_does_not_stop_the_press() -> None:
    assert NAME in page(station_name=f"{NAME}\N{GRINNING FACE}").extract_text()


def test_characters_take_their_mainland_forms() -> None:
    """The bone turns its corner to the other side in Taiwan, whose form comes first."""
    with (
        TTFont(font_path(), lazy=True) as whole,
        TTFont(io.BytesIO(subset("骨一"))) as ours,
    ):
        given, taken = whole.getBestCmap(), ours.getBestCmap()
        assert set(taken) == {ord(" "), ord("骨"), ord("一")}
        assert taken[ord("一")] == given[ord("一")]
        assert taken[ord("骨")] != given[ord("骨")]
        assert ours["glyf"][taken[ord("骨")]].numberOfContours > 0
