"""The text of params.yaml changed where it must be, and not a character besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import yaml

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic


def replace_values(path: Path, values: Mapping[str, int | float]) -> None:
    """Write each value where its field (`train.lora.rank`) stands in the file, or into its section if it does not.

    Raises PerpetuneError, with the file as it was, if a field has something else than a plain number there.
    """
    text = read_text(path)
    for field, value in values.items():
        text = _with_value(text, field.split("."), number_as_yaml(value), path)
    write_atomic(path.resolve(), text)


def read_text(path: Path) -> str:
    """As bytes, since reading as text would turn the line ends of Windows into others."""
    return path.read_bytes().decode("utf-8")


def with_keys(text: str, renamed: Mapping[tuple[str, str], str]) -> str:
    """The text with keys renamed: each is named by its section and itself."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    keys = [
        (key.start_mark.index, key.end_mark.index, renamed[section.value, key.value])
        for section, body in _pairs(root)
        for key, _ in _pairs(body)
        if (section.value, key.value) in renamed
    ]
    for start, end, name in sorted(keys, reverse=True):
        text = text[:start] + name + text[end:]
    return text


def with_entry(text: str, name: str, value: str, path: Path) -> str:
    """The text with an entry at the top of the file, in place of one of that name."""
    return _with_value(text, [name], value, path)


def _with_value(text: str, parts: Sequence[str], value: str, path: Path) -> str:
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, part in enumerate(parts):
        found = [body for key, body in _pairs(node) if key.value == part]
        if not found and depth == 0 and len(parts) > 1:
            return _with_section(text, node, parts, value, _refusal(parts, node, path))
        if not found:
            return _inserted(text, node, parts[depth:], value, _refusal(parts, node, path))
        node = found[0]
    assert node is not None
    position = slice(node.start_mark.index, node.end_mark.index)
    # An anchor, a tag or quotes are more than the number, and an alias stands elsewhere.
    if not isinstance(node, yaml.ScalarNode) or text[position] != node.value:
        raise _refusal(parts, node, path)
    return text[: position.start] + value + text[position.stop :]


def _with_section(text: str, root: yaml.Node | None, parts: Sequence[str], value: str, refusal: PerpetuneError) -> str:
    """The text with a section at its end that has this setting alone."""
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise refusal
    for part in reversed(parts[2:]):
        value = f"{{{part}: {value}}}"
    newline = "\r\n" if "\r\n" in text else "\n"
    return newline.join([text.rstrip("\r\n"), "", f"{parts[0]}:", f"  {parts[1]}: {value}", ""])


def _inserted(text: str, node: yaml.Node | None, parts: Sequence[str], value: str, refusal: PerpetuneError) -> str:
    """The text with a new first entry in a mapping: before the others, so that their comments stay with them."""
    if not isinstance(node, yaml.MappingNode):
        raise refusal
    for part in reversed(parts[1:]):
        value = f"{{{part}: {value}}}"
    start, entry = node.start_mark.index, f"{parts[0]}: {value}"
    if node.flow_style:
        if text[start] != "{":  # an anchor or a tag
            raise refusal
        return f"{text[: start + 1]}{entry}{', ' if node.value else ''}{text[start + 1 :]}"
    if start != node.value[0][0].start_mark.index:
        raise refusal
    newline = "\r\n" if "\r\n" in text else "\n"
    return f"{text[:start]}{entry}{newline}{' ' * node.start_mark.column}{text[start:]}"


def _refusal(parts: Sequence[str], node: yaml.Node | None, path: Path) -> PerpetuneError:
    return PerpetuneError(
        f"{'.'.join(parts)}: there is no plain number to replace",
        where=f"{path}:{node.start_mark.line + 1}" if node else str(path),
        do="write the value there yourself",
    )


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def number_as_yaml(value: int | float) -> str:
    """The number as people write it in YAML, whose readers take `3e-4` for a word and `3.0e-4` for a number."""
    if value == int(value):
        return str(int(value))
    if value >= 0.01:
        return repr(value)
    mantissa, exponent = f"{Decimal(repr(value)):e}".split("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"
