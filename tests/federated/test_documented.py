import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["federated.md", "dp.md"])
def test_the_documented_example_prints_what_the_page_says(page, capsys):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)
    (_, program), (language, printed) = blocks[:2]
    assert (blocks[0][0], language) == ("python", "")
    exec(compile(program, page, "exec"), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out == printed
