"""The reference of params.yaml and of the environment, from the models that read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import yaml
from attribute_docstrings import attribute_docstrings, describe
from json_schema import Schema, default_text, models_in, type_text
from markdown_text import ROOT, code, linked, table
from pydantic import AliasChoices, AliasPath
from pydantic.fields import FieldInfo

from perpetune.params import Params
from perpetune.params import sections as package
from perpetune.params.renamed_settings import SCHEMA, SCHEMA_KEY
from perpetune.settings import Settings

PAGE = "reference/settings.md"
ENVIRONMENT = "reference/environment.md"
_UNIT = re.compile(r"\s*Unit: (.+)\.$")
# Named by the libraries that read them, and part of the set-up all the same.
_ELSEWHERE = {
    "HF_TOKEN": "The key for gated models of the Hugging Face hub.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Address that the gateway sends traces to; unset, it sends none. OpenTelemetry's other "
    "variables hold too. See docs/guides/observability.md.",
    "FORWARDED_ALLOW_IPS": "Proxies whose `X-Forwarded-For` the gateway believes, if `serve.trusted_proxies` names none.",
}


@dataclass(frozen=True)
class Setting:
    """One setting of params.yaml; `model` is the section below it, if there is one."""

    name: str
    type: str
    default: str
    shipped: str
    unit: str
    description: str


@dataclass(frozen=True)
class SectionText:
    name: str
    description: str
    settings: tuple[Setting, ...]


def sections() -> tuple[SectionText, ...]:
    schema = Params.model_json_schema()
    for module in iter_modules(package.__path__, f"{package.__name__}."):
        describe(schema, attribute_docstrings(import_module(module.name)))
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return tuple(_sections(schema, shipped))


def _sections(schema: Schema, shipped: dict[str, Any]) -> Iterator[SectionText]:
    for name, field in schema["properties"].items():
        value = shipped.get(name)
        models = models_in(field)
        if models:
            model = schema["$defs"][models[0]]
            settings = _settings(model, schema["$defs"], name, value if isinstance(value, dict) else {})
            yield SectionText(name, _words(model), tuple(settings))
        else:
            yield SectionText(name, "", (_setting(name, field, True, shipped.get(name, ...)),))


def _settings(model: Schema, models: Schema, prefix: str, shipped: dict[str, Any]) -> Iterator[Setting]:
    for name, field in model["properties"].items():
        path = f"{prefix}.{name}"
        value = shipped.get(name, ...)
        yield _setting(path, field, name in model.get("required", ()), value)
        for nested in models_in(field):
            yield from _settings(models[nested], models, path, value if isinstance(value, dict) else {})


def _setting(path: str, field: Schema, required: bool, shipped: Any) -> Setting:
    description, unit = _split(_words(field))
    value = "" if shipped is ... or isinstance(shipped, dict) else yaml_text(shipped)
    return Setting(path, type_text(field), default_text(field, required), value, unit, description)


def yaml_text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()


def _words(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split())


def _split(text: str) -> tuple[str, str]:
    """The description, and the unit that its last sentence names."""
    found = _UNIT.search(text)
    return (text[: found.start()], found[1]) if found else (text, "")


def settings_page() -> str:
    parts = [
        "# Settings",
        "Each setting of `params.yaml`, generated from `perpetune/params/sections`. A wrong name, type or value is reported "
        "with its file, line and field before anything starts. *Shipped* is the value in the `params.yaml` of the "
        "repository, which is the reviews task of the demo.",
    ]
    parts += [
        f"## {SCHEMA_KEY}",
        f"The version of the settings' names: {SCHEMA}. A file without it has version 1, and `perpetune params upgrade` "
        "writes today's names into it.",
    ]
    for section in sections():
        parts += [f"## {section.name}", section.description, *(_entry(each) for each in section.settings)]
    return linked("\n\n".join(part for part in parts if part) + "\n", PAGE)


def _entry(setting: Setting) -> str:
    default = setting.default if setting.default == "required" else f"default {code(setting.default)}"
    facts = [
        _type(setting.type),
        *([default] if setting.default else []),
        *([f"shipped {code(setting.shipped)}"] if setting.shipped else []),
        *([f"unit: {setting.unit}"] if setting.unit else []),
    ]
    return (
        f"#### `{setting.name}` {{ #{setting.name} }}\n\n<span class='facts' markdown>{' · '.join(facts)}</span>\n\n"
        f"{setting.description}"
    )


def _type(text: str) -> str:
    """A model is described by the settings that follow."""
    return re.sub(r"\[(\w+)\]", "mapping, see below", text).replace("<", "&lt;")


@dataclass(frozen=True)
class Variable:
    name: str
    default: str
    description: str


def variables() -> tuple[Variable, ...]:
    prefix = str(Settings.model_config.get("env_prefix", ""))
    found = [
        Variable(_variable(name, field, prefix), _default(field), " ".join((field.description or "").split()))
        for name, field in Settings.model_fields.items()
    ]
    return (*found, *(Variable(name, "", text) for name, text in _ELSEWHERE.items()))


def _variable(name: str, field: FieldInfo, prefix: str) -> str:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices | AliasPath):
        raise TypeError(f"{name}: this page knows only one name for a variable")
    return alias or f"{prefix}{name}".upper()


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None or field.default in (None, ""):
        return ""
    return code(field.default)


def environment_page() -> str:
    rows = [(code(each.name), each.default, each.description) for each in variables()]
    text = (
        "# Environment variables\n\n"
        "Addresses, folders and secrets are environment variables, because they differ from machine to machine while a "
        "run stays the same. Generated from `perpetune/settings.py`.\n\n"
        + table(["Variable", "Default", "Meaning"], rows)
    )
    return linked(text, ENVIRONMENT)
