"""Replace values in the text of params.yaml, keeping its formatting and comments."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import yaml

from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic


def replace_values(path: Path, values: Mapping[str, int | float]) -> None:
    """Replace the value of each field (such as `train.lora.rank`) in the file.

    Raises PerpetuneError, without changing the file, if a field has no plain number in it.
    """
    # As bytes, to keep Windows line endings.
    text = path.read_bytes().decode("utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    positions = {field: _position(root, field, text, path) for field in values}
    for field, position in sorted(positions.items(), key=lambda item: item[1].start, reverse=True):
        text = text[: position.start] + as_yaml(values[field]) + text[position.stop :]
    write_atomic(path.resolve(), text)


def _position(root: yaml.Node | None, field: str, text: str, path: Path) -> slice:
    node = root
    for part in field.split("."):
        found = [value for key, value in node.value if key.value == part] if isinstance(node, yaml.MappingNode) else []
        node = found[0] if found else None
    if isinstance(node, yaml.ScalarNode):
        position = slice(node.start_mark.index, node.end_mark.index)
        # Not a plain number: it has an anchor, a tag or quotes, or is an alias.
        if text[position] == node.value:
            return position
    raise PerpetuneError(
        f"{field} has no plain number to replace",
        where=f"{path}:{node.start_mark.line + 1}" if node else str(path),
        do="edit the value by hand",
    )


def as_yaml(value: int | float) -> str:
    """The number in YAML, which reads `3e-4` as a string and `3.0e-4` as a number."""
    if value == int(value):
        return str(int(value))
    if value >= 0.01:
        return repr(value)
    mantissa, exponent = f"{Decimal(repr(value)):e}".split("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"
