# ruff: noqa: E501, S608
"""Text without names, in the shapes that most often look like them: code of many languages, logs, tables, headings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random


class Negatives:
    """Endless lines in which nothing is a name, from ``common`` words and made-up ones."""

    def __init__(self, rng: Random, common: Sequence[str], made: Callable[[], str]) -> None:
        self._rng, self._common, self._made = rng, common, made

    def draw(self) -> str:
        """One to six lines of one shape."""
        rng = self._rng
        shape = rng.choice((
            self._call, self._call, self._python, self._braces, self._braces, self._shell, self._query, self._markup,
            self._setting, self._record, self._log, self._log, self._trace, self._numbers, self._heading, self._heading,
            self._clause, self._sentence, self._sentence, self._comment, self._comment, self._list,
        ))  # fmt: skip
        return rng.choice(("\n", "\n", " ")).join(shape() for _ in range(rng.randint(1, 6)))

    def _word(self) -> str:
        return self._rng.choice(self._common) if self._rng.random() < 0.75 else self._made()

    def _identifier(self) -> str:
        rng = self._rng
        words = [self._word() for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        style = rng.random()
        if style < 0.3:
            return "_".join(words)
        if style < 0.55:
            return "".join(word.title() for word in words)
        if style < 0.7:
            return words[0] + "".join(word.title() for word in words[1:])
        if style < 0.85:
            return "_".join(words).upper()
        if style < 0.9:
            return "-".join(words)
        return rng.choice(("self", "std", "this", "np", "os")) + rng.choice((".", "::")) + "_".join(words)

    def _value(self) -> str:
        rng = self._rng
        return rng.choice((
            self._identifier(), self._identifier(), str(rng.randint(0, 9999)), f"{rng.random():.3f}",
            f"0x{rng.getrandbits(32):08x}", f'"{self._word()}"', f"'{self._word()} {self._word()}'", "None", "true",
            f"{self._identifier()}()", f"{self._identifier()}[{rng.randint(0, 9)}]", "NULL", "True", "nil",
        ))  # fmt: skip

    def _call(self) -> str:
        rng = self._rng
        arguments = ", ".join(self._value() for _ in range(rng.randint(0, 3)))
        head = rng.choice(("", f"{self._identifier()} = ", "return ", "await ", "auto x = ", "let y = ", "const Z = "))
        return (
            " " * rng.choice((0, 2, 4, 8)) + f"{head}{self._identifier()}({arguments})" + rng.choice(("", ";", "", ","))
        )

    def _python(self) -> str:
        one, two, three = self._identifier(), self._identifier(), self._identifier()
        return self._rng.choice((
            f"class {one}({two}):", f"def {one}(self, {two}: {three}, *args) -> {self._value()}:", f"import {one}",
            f"from {one.lower()} import {two}, {three}", f"    raise {one}Error({self._value()}) from error",
            f"for {one} in {two}:", f"    if not isinstance({one}, {two}):", f"@{one}.{two}", f"except {one}:",
            f"    {one}: {two} = {self._value()}", f">>> {one}({self._value()})", f"assert {one} == {self._value()}",
        ))  # fmt: skip

    def _braces(self) -> str:
        one, two, three = self._identifier(), self._identifier(), self._identifier()
        return self._rng.choice((
            f"public static {one} {two}({three} {self._word()}) {{", f"#define {one.upper()} {self._value()}",
            f"#include <{one.lower()}.h>", f"func ({self._word()[0]} *{one}) {two}() ({three}, error) {{", "}",
            f"export default function {one}({{ {two}, {three} }}) {{", f"impl {one} for {two} {{",
            f"typedef struct {one} {{ int {two}; }} {three};", f"package {one.lower()}.{two.lower()};",
            f"if ({one} == {self._value()}) {{ return {two}; }}", f"extern {one} *{two}(const {three} *);",
            f"new {one}<{two}>({three})", f"case {one}: break;", f"throw new {one}Exception({self._value()});",
        ))  # fmt: skip

    def _shell(self) -> str:
        rng, one, two = self._rng, self._word(), self._word()
        return rng.choice((
            f"$ {one} --{two}={self._value()} /{one}/{two}/{self._made()}.{rng.choice(('txt', 'conf', 'log', 'so'))}",
            f"export {one.upper()}_{two.upper()}=/usr/{one}/{two}", f"cd {one}/{two} && make {self._made()}",
            f"sudo apt install {self._made()}-{one}", f"git commit -m '{one.title()} {two}'", f"-rw-r--r-- 1 root {one}",
            f"FROM {self._made()}:{rng.randint(1, 30)}", f"RUN pip install {self._made()}=={rng.randint(0, 9)}.{rng.randint(0, 30)}",
        ))  # fmt: skip

    def _query(self) -> str:
        one, two, three = self._identifier(), self._identifier(), self._identifier()
        return self._rng.choice((
            f"SELECT {one}, {two} FROM {three} WHERE {one} = {self._value()} ORDER BY {two} DESC;",
            f"CREATE TABLE {one} ({two} INTEGER PRIMARY KEY, {three} TEXT NOT NULL);",
            f"INSERT INTO {one} VALUES ({self._value()}, {self._value()});", f"DROP INDEX IF EXISTS {one};",
        ))  # fmt: skip

    def _markup(self) -> str:
        one, two = self._word(), self._identifier()
        return self._rng.choice((
            f'<{one} class="{two}" id="{self._word()}">', f"</{one}>", f"<{two}/>", f"<td>{self._rng.randint(0, 999)}</td>",
            f"**{one.title()}**: `{two}`", f"[{one}]({two.lower()}.html)", f"\\{one}{{{two}}}", f"- [ ] {one} {two}",
            f".{one} {{ {self._word()}: {self._rng.randint(1, 99)}px; }}", f"{{{{ {one}.{two} }}}}", f"&{one};",
        ))  # fmt: skip

    def _setting(self) -> str:
        one, two = self._identifier(), self._identifier()
        return self._rng.choice((
            f"{one}: {self._value()}", f"{one} = {self._value()}", f'"{one}": {self._value()},', f"[{one}]",
            f"  - {one}", f"{one.title()}: {two}", f"X-{self._word().title()}-{self._word().title()}: {self._value()}",
            f"Content-{self._word().title()}: {self._word()}/{self._word()}", f"{one}={self._value()}&{two}={self._value()}",
        ))  # fmt: skip

    def _record(self) -> str:
        pairs = ", ".join(f'"{self._identifier()}": {self._value()}' for _ in range(self._rng.randint(1, 4)))
        return "{" + pairs + "}"

    def _log(self) -> str:
        rng = self._rng
        day = f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        stamp = f"{day} {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
        level = rng.choice(("INFO", "DEBUG", "WARN", "WARNING", "ERROR", "FATAL", "TRACE", "Notice"))
        said = " ".join(self._word() for _ in range(rng.randint(1, 7))).capitalize()
        where = rng.choice(
            (f"[{self._identifier()}]", f"{self._identifier()}:", f"{self._made()}[{rng.randint(1, 9999)}]:")
        )
        return rng.choice((
            f"{stamp} {level} {where} {said}", f"{level}: {said}", f"[{stamp}] {where} {said} ({rng.randint(1, 900)} ms)",
            f"{stamp},{rng.randint(0, 999):03d} - {self._identifier()} - {level} - {said}",
            f"{rng.choice(('GET', 'POST', 'PUT'))} /{self._word()}/{self._word()} HTTP/1.1 {rng.choice((200, 404, 500))}",
            f"{level} {self._identifier()}={self._value()} {self._word()}={self._value()}",
        ))  # fmt: skip

    def _trace(self) -> str:
        rng = self._rng
        return rng.choice((
            f'  File "/{self._word()}/{self._identifier()}.py", line {rng.randint(1, 999)}, in {self._identifier()}',
            f"{self._identifier()}Error: {self._word()} {self._word()} {self._value()}",
            f"    at {self._identifier()}.{self._identifier()}({self._identifier()}.java:{rng.randint(1, 999)})",
            f"Caused by: {self._made()}.{self._identifier()}Exception", f"#{rng.randint(0, 30)} 0x{rng.getrandbits(40):010x} in {self._identifier()}",
        ))  # fmt: skip

    def _numbers(self) -> str:
        rng = self._rng
        return rng.choice((
            " ".join(f"{rng.gauss(0, 50):.{rng.randint(0, 4)}f}" for _ in range(rng.randint(2, 8))),
            ",".join(str(rng.randint(0, 10 ** rng.randint(1, 8))) for _ in range(rng.randint(2, 8))),
            f"{self._word().title()} {rng.randint(1, 99)}.{rng.randint(1, 9)}: {rng.randint(1, 9999)} {self._word()}",
            f"{self._word()}\t{rng.randint(1, 10**6)}\t{rng.random() * 100:.1f}%", f"| {self._word()} | {rng.randint(1, 99)} |",
            f"ISBN 978-{rng.randint(0, 9)}-{rng.randint(100, 999)}-{rng.randint(10000, 99999)}-{rng.randint(0, 9)}",
        ))  # fmt: skip

    def _heading(self) -> str:
        rng = self._rng
        words = [rng.choice(self._common) for _ in range(rng.randint(1, 6))]
        styled = " ".join(word.title() if rng.random() < 0.8 else word for word in words)
        number = rng.choice(
            ("", "", f"{rng.randint(1, 20)}. ", f"{rng.randint(1, 9)}.{rng.randint(1, 9)} ", "# ", "## ")
        )
        return number + rng.choice((styled, styled, styled.upper(), styled.capitalize())) + rng.choice(("", "", ":"))

    def _clause(self) -> str:
        """As licences and contracts are written: defined terms in capitals."""
        rng = self._rng
        words = [rng.choice(self._common) for _ in range(rng.randint(8, 24))]
        words = [
            word.title() if rng.random() < 0.2 else word.upper() if rng.random() < 0.05 else word for word in words
        ]
        return f"{rng.choice(('', '(a) ', '1. ', '(ii) '))}{' '.join(words).capitalize() if rng.random() < 0.3 else ' '.join(words)}."

    def _sentence(self) -> str:
        rng = self._rng
        words = [self._word() if rng.random() < 0.15 else rng.choice(self._common) for _ in range(rng.randint(3, 20))]
        if rng.random() < 0.3:
            words[rng.randrange(len(words))] = self._identifier()
        return " ".join(words).capitalize() + rng.choice((".", ".", "!", "?", ":", ";", ","))

    def _comment(self) -> str:
        rng = self._rng
        said = self._sentence()
        return (
            " " * rng.choice((0, 4))
            + rng.choice(("# ", "// ", " * ", '"""', "-- ", "/* ", "TODO: ", "NOTE: ", "See "))
            + said
        )

    def _list(self) -> str:
        rng = self._rng
        words = [self._word().title() if rng.random() < 0.5 else self._word() for _ in range(rng.randint(2, 6))]
        return rng.choice(("- ", "* ", "", "• ")) + rng.choice((", ", "; ", " / ", " | ")).join(words)
