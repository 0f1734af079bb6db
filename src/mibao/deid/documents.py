"""The text of documents: PDF, Word and HTML; what a reader cannot be sure to have seen is refused by name.

Only text comes out: layout, pictures, scripts and attached files are left behind, so none of them is ever passed on.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from io import BytesIO
from types import MappingProxyType
from typing import Any

from mibao.errors import InputError, MissingExtra

MAX_BYTES = 1 << 28
MAX_UNPACKED_BYTES = 1 << 29
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "td",
        "th",
        "tr",
        "ul",
        "title",
    ]
)
_UNSEEN = frozenset(("script", "style", "template", "noscript"))
_ATTRIBUTES = frozenset(("alt", "title", "placeholder", "value", "content", "label", "aria-label"))


def pdf_text(data: bytes) -> Iterator[str]:
    """The text of a PDF, page by page.

    Raises:
        InputError: it is damaged or encrypted, or a page of it has pictures and no text: such a page cannot be read.
        MissingExtra: the extra ``documents`` is not installed.
    """
    try:
        from pypdf import PdfReader  # noqa: PLC0415
        from pypdf.errors import PyPdfError  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("the text of a PDF", extra="documents") from error
    _silence("pypdf")
    try:
        reader = PdfReader(BytesIO(data), strict=False)
        if reader.is_encrypted:
            raise InputError("PDF: expected one that is not encrypted")
        for number, page in enumerate(reader.pages, 1):
            text = page.extract_text()
            if not text.strip() and _has_pictures(page):
                raise InputError(f"PDF: page {number} is a picture, and text is not taken from pictures")
            yield text + "\n\n"
        for field in (reader.get_form_text_fields() or {}).values():
            if field:
                yield f"{field}\n"
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise InputError(f"PDF: it cannot be read ({type(error).__name__})") from error


@cache
def _silence(name: str) -> None:
    """A library's warnings could quote what stands in a document."""
    logging.getLogger(name).addHandler(logging.NullHandler())
    logging.getLogger(name).propagate = False


def _has_pictures(page: Any) -> bool:
    resources = page.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    return objects is not None and len(objects.get_object()) > 0


def word_text(data: bytes) -> Iterator[str]:
    """The text of a Word document (.docx): headers, body with its tables, footers, notes and comments.

    Raises:
        InputError: it is damaged or unpacks to more than :data:`MAX_UNPACKED_BYTES`.
        MissingExtra: the extra ``documents`` is not installed.
    """
    try:
        import docx  # noqa: PLC0415
        from docx.opc.exceptions import PackageNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("the text of a Word document", extra="documents") from error
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            if sum(each.file_size for each in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise InputError(f"Word: expected at most {MAX_UNPACKED_BYTES >> 20} MiB unpacked")
        document = docx.Document(BytesIO(data))
        parts = [document.element.body]
        for section in document.sections:
            for each in (section.header, section.first_page_header, section.footer, section.first_page_footer):
                if not each.is_linked_to_previous:
                    parts.append(each._element)
        for relation in document.part.rels.values():
            if not relation.is_external and relation.reltype.rsplit("/", 1)[-1] in (
                "footnotes",
                "endnotes",
                "comments",
            ):
                parts.append(_parsed(relation.target_part))
        for part in parts:
            yield from _paragraphs(part)
    except (zipfile.BadZipFile, PackageNotFoundError, KeyError, ValueError, SyntaxError) as error:
        raise InputError(f"Word: it cannot be read ({type(error).__name__})") from error


def _parsed(part: Any) -> Any:
    from docx.oxml.parser import parse_xml  # noqa: PLC0415

    return part.element if hasattr(part, "element") else parse_xml(part.blob)


def _paragraphs(element: Any) -> Iterator[str]:
    """Each paragraph with its line end, text boxes and deleted text that is still there among them."""
    for paragraph in element.iter("{*}p"):
        pieces = []
        for node in paragraph.iter("{*}t", "{*}delText", "{*}instrText", "{*}tab", "{*}br"):
            name = node.tag.rpartition("}")[2]
            pieces.append({"tab": "\t", "br": "\n"}.get(name) or node.text or "")
        if pieces:
            yield "".join(pieces) + "\n"


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN
        if tag in _BLOCKS:
            self.pieces.append("\n")
        self.pieces += [f" {value} " for name, value in attrs if name in _ATTRIBUTES and value and tag != "meta"]

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in _UNSEEN))
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.pieces.append(data)


def html_text(data: bytes) -> Iterator[str]:
    """The text of a page, without its scripts and styles.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("HTML: expected UTF-8") from error
    parser = _Text()
    parser.feed(text)
    parser.close()
    yield re.sub(r"[ \t]*\n[\s]*", "\n", "".join(parser.pieces)).strip() + "\n"


READERS: Mapping[str, Callable[[bytes], Iterator[str]]] = MappingProxyType(
    {".pdf": pdf_text, ".docx": word_text, ".html": html_text, ".htm": html_text}
)
