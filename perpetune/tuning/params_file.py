"""Settings changed in the text of params.yaml, and not a character besides."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import yaml

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic


def rewrite(path: Path, values: Mapping[str, int | float]) -> None:
    """Write each value where its field (`train.lora.rank`) stands in the file.

    Raises PerpetuneError, with the file as it was, where a field has no plain number of its own there.
    """
    # As bytes, since reading as text would turn the line ends of Windows into others.
    text = path.read_bytes().decode("utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    positions = {field: _place(root, field, text, path) for field in values}
    for field, position in sorted(positions.items(), key=lambda item: item[1].start, reverse=True):
        text = text[: position.start] + as_yaml(values[field]) + text[position.stop :]
    write_atomic(path.resolve(), text)


def _place(root: yaml.Node | None, field: str, text: str, path: Path) -> slice:
    node = root
    for part in field.split("."):
        found = [value for key, value in node.value if key.value == part] if isinstance(node, yaml.MappingNode) else []
        node = found[0] if found else None
    if isinstance(node, yaml.ScalarNode):
        position = slice(node.start_mark.index, node.end_mark.index)
        # An anchor, a tag or quotes are more than the number, and an alias stands elsewhere.
        if text[position] == node.value:
            return position
    raise PerpetuneError(
        f"{field}: there is no plain number to replace",
        where=f"{path}:{node.start_mark.line + 1}" if node else str(path),
        do="write the value there yourself",
    )


def as_yaml(value: int | float) -> str:
    """The number as people write it in YAML, whose readers take `3e-4` for a word and `3.0e-4` for a number."""
    if value == int(value):
        return str(int(value))
    if value >= 0.01:
        return repr(value)
    mantissa, exponent = f"{Decimal(repr(value)):e}".split("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"
