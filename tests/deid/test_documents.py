import io
import json
import re
import zipfile
from pathlib import Path

import pytest

from command_line import mibao
from mibao.deid.documents import html_text, pdf_text, word_text
from mibao.deid.fhir import parse_resource
from mibao.errors import InputError


def _pdf(*pages: str, picture: bool = False) -> bytes:
    """A PDF of text pages, written out by hand: what a printer would make, without the printer."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    xobject = "/XObject << /I 4 0 R >>" if picture else ""
    objects.append("<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 "
                   "/Length 1 >>\nstream\n0\nendstream")  # fmt: skip
    for text in pages:
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else "q Q"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
                       f"/Resources << /Font << /F1 3 0 R >> {xobject} >> >>")  # fmt: skip
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, places = "%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{each}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    return (f"{out}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} "
            f"/Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n").encode()  # fmt: skip


def test_the_text_of_a_pdf_is_taken_page_by_page() -> None:
    assert [page.strip() for page in pdf_text(_pdf("Dr. Chen came", "mail a@b.co"))] == ["Dr. Chen came", "mail a@b.co"]


def test_a_page_that_is_a_picture_is_refused_by_its_number() -> None:
    with pytest.raises(InputError, match=r"^PDF: page 1 is a picture, and text is not taken from pictures$"):
        list(pdf_text(_pdf("", picture=True)))
    assert list(pdf_text(_pdf("text", picture=True))) != []


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4", b"not a pdf"])
def test_a_damaged_pdf_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^PDF: it cannot be read"):
        list(pdf_text(data))


def test_the_text_of_a_word_document_is_taken_with_its_tables_and_headers() -> None:
    import docx

    document = docx.Document()
    document.add_paragraph("Patient: Lin Xiaoyu")
    document.add_table(rows=1, cols=2).rows[0].cells[1].text = "电话13800138000"
    document.sections[0].header.paragraphs[0].text = "Clinic of Dr. Chen"
    data = io.BytesIO()
    document.save(data)
    text = "".join(word_text(data.getvalue()))
    assert all(part in text for part in ("Patient: Lin Xiaoyu", "电话13800138000", "Clinic of Dr. Chen"))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", b"\0" * 10)
    for damaged in (b"PK\3\4", bomb.getvalue()):
        with pytest.raises(InputError, match=r"^Word: it cannot be read"):
            list(word_text(damaged))


def test_the_text_of_a_page_is_taken_without_its_scripts() -> None:
    page = '<p>Dr.&nbsp;Chen</p><script>var x = "a@b.co"</script><img alt="林晓雨"><td>1</td><td>2</td>'
    text = "".join(html_text(page.encode()))
    assert "Dr.\u00a0Chen" in text
    assert "林晓雨" in text
    assert "a@b.co" not in text
    assert re.search(r"1\n2", text)


def test_a_document_is_masked_as_text(tmp_path: Path) -> None:
    (tmp_path / "note.pdf").write_bytes(_pdf("Dr. Chen, mail a@b.co"))
    done = mibao("mask", "note.pdf", folder=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "Dr. <PERSON>, mail <EMAIL_ADDRESS>")
    (tmp_path / "page.html").write_text("<p>mail a@b.co</p>", encoding="utf-8")
    assert mibao("mask", "page.html", folder=tmp_path).stdout.strip() == "mail <EMAIL_ADDRESS>"


PATIENT = {
    "resourceType": "Patient", "active": True,
    "name": [{"use": "official", "family": "Chalmers", "given": ["Peter", "James"], "text": "Peter Chalmers"}],
    "identifier": [{"system": "urn:oid:1.2.36", "value": "12345"}],
    "telecom": [{"system": "phone", "value": "(03) 5555 6473"}], "birthDate": "1974-12-25",
    "address": [{"line": ["534 Erewhon St"], "city": "PleasantVille", "postalCode": "39999"}],
    "text": {"status": "generated", "div": "<div>Dr. Chen saw him</div>"},
}  # fmt: skip


def test_a_fhir_resource_keeps_its_shape_and_loses_its_person(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(PATIENT), encoding="utf-8")
    done = mibao("mask", "p.json", "-o", "out.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    out = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert out["name"] == [
        {"use": "official", "family": "<PERSON>", "given": ["<PERSON>", "<PERSON>"], "text": "<PERSON>"}
    ]
    assert out["identifier"][0]["value"] == "<MEDICAL_RECORD>"
    assert out["birthDate"] == "<DATE_TIME>"
    assert out["address"][0]["city"] == "<LOCATION>"
    assert (out["resourceType"], out["active"]) == ("Patient", True)
    assert not [value for value in ("Chalmers", "Erewhon", "5555", "Chen") if value in json.dumps(out)]


def test_a_resource_with_a_file_in_it_is_refused_and_other_json_is_text(tmp_path: Path) -> None:
    photo = {"resourceType": "Patient", "photo": [{"contentType": "image/png", "data": "aGk="}]}
    with pytest.raises(InputError, match=r"^FHIR: an attachment lies in it, and text is not taken from attachments$"):
        parse_resource(json.dumps(photo).encode())
    assert parse_resource(b'{"a": 1}') is None
    (tmp_path / "a.json").write_text('{"mail": "a@b.co"}', encoding="utf-8")
    assert mibao("mask", "a.json", folder=tmp_path).stdout == '{"mail": "<EMAIL_ADDRESS>"}'


@pytest.mark.parametrize("name", ["scan.dcm", "photo.png", "x.tiff", "scan.nii", "talk.mp3", "old.doc"])
def test_what_holds_no_text_that_can_be_taken_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"a@b.co")
    done = mibao("mask", name, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {name}: text is not taken from ")
