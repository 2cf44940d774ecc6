"""The typeface of printed sheets: only the characters they need, in their mainland forms.

Noto Sans CJK (OFL 1.1) comes as a package of 16 MB with the forms of Taiwan first. Each sheet gets
a font of its own with some dozens of glyphs, the ones the typeface's own `locl` feature names for
simplified Chinese, as TrueType curves, which every printer and every reader of PDF understands.
"""

import io
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

PACKAGE = "cvttf-notosanscjk-regular"
"""The package that brings the typeface."""

_NOTDEF = ".notdef"
_MAX_ERROR = 1.0
"""By how many units of 1/1000 em a curve may leave the original."""


class TypefaceMissing(RuntimeError):
    """The package with the typeface is not installed."""


def subset(text: str, *, family: str = "Noto Sans CJK SC") -> bytes:
    """Make a TrueType font of the characters of a text; raises TypefaceMissing.

    A character that the typeface lacks shows as a crossed box.
    """
    with TTFont(font_path(), lazy=True) as source:
        mainland = _mainland_forms(source)
        known = source.getBestCmap()
        glyph_of = {ord(c): known.get(ord(c), _NOTDEF) for c in set(text) | {" "}}
        glyph_of = {code: mainland.get(name, name) for code, name in sorted(glyph_of.items())}
        return _built(source, glyph_of, family)


def font_path() -> Path:
    """Find the file that the package brought; raises TypefaceMissing."""
    try:
        brought = files(PACKAGE) or []
    except PackageNotFoundError as error:
        raise TypefaceMissing(f"{PACKAGE} is not installed") from error
    for file in brought:
        path = Path(str(file.locate()))
        if path.suffix == ".otf" and path.is_file():
            return path
    raise TypefaceMissing(f"{PACKAGE} holds no font")


def _mainland_forms(source: TTFont) -> dict[str, str]:
    """Read which glyph stands for which in simplified Chinese."""
    table = source["GSUB"].table
    wanted = {
        lookup
        for script in table.ScriptList.ScriptRecord
        if script.ScriptTag == "hani"
        for language in script.Script.LangSysRecord
        if language.LangSysTag == "ZHS "
        for index in language.LangSys.FeatureIndex
        if table.FeatureList.FeatureRecord[index].FeatureTag == "locl"
        for lookup in table.FeatureList.FeatureRecord[index].Feature.LookupListIndex
    }
    forms: dict[str, str] = {}
    for index in sorted(wanted):
        for part in table.LookupList.Lookup[index].SubTable:
            single: Any = getattr(part, "ExtSubTable", part)
            forms |= getattr(single, "mapping", {})
    return forms


def _built(source: TTFont, glyph_of: dict[int, str], family: str) -> bytes:
    outlines = source.getGlyphSet()
    glyphs, advances = {}, {}
    for name in [_NOTDEF, *sorted(set(glyph_of.values()) - {_NOTDEF})]:
        pen = TTGlyphPen(None)
        outlines[name].draw(Cu2QuPen(pen, _MAX_ERROR, reverse_direction=True))
        glyphs[name] = pen.glyph()
        advances[name] = source["hmtx"][name][0]
    builder = FontBuilder(source["head"].unitsPerEm, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(glyph_of)
    builder.setupGlyf(glyphs)
    shapes = builder.font["glyf"]
    builder.setupHorizontalMetrics(
        {name: (advance, getattr(shapes[name], "xMin", 0)) for name, advance in advances.items()}
    )
    builder.setupHorizontalHeader(ascent=source["hhea"].ascent, descent=source["hhea"].descent)
    builder.setupNameTable(
        {
            "familyName": family,
            "styleName": "Regular",
            "psName": family.replace(" ", "") + "-Regular",  # Some readers ask for it.
        }
    )
    builder.setupOS2(sCapHeight=source["OS/2"].sCapHeight, usWeightClass=400)
    builder.setupPost()
    made = io.BytesIO()
    builder.save(made)
    return made.getvalue()
