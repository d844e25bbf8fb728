"""Key tables, templates and the JSON Schema of profile files.

All of it is read from the model in `hardware.schema`, so that they always agree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from spear_deploy.errors import FileError
from spear_deploy.hardware.fields import UNPUBLISHED, Fact, unit_of, words_of
from spear_deploy.hardware.schema import CoreLimits, HardwareProfile
from spear_deploy.util.files import replace_file

GUESS = {"source": "a guess of the template; replace it", "evidence": "projected"}
GUESSES = {("weights", "bits"): [8], ("weights", "default_bits"): 8}
"""Values of needed keys, so that a template that is not filled in yet loads."""

HEAD = """\
# A hardware profile of spear_deploy. `spear-deploy check NET --chip {file}` takes this file as it is.
# A fact is {{value, unit, source, evidence}}. `value: null` with `evidence: unpublished` says that nobody has published it: what
# depends on it is then unchecked. `value: unlimited` says that the chip has no such limit. Otherwise say the source, and as
# evidence one of measured, simulated, vendor, derived, projected. A key that is left out is unpublished.
"""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a profile file with unit, meaning, possible words, and whether a file needs it."""

    key: str
    unit: str
    meaning: str
    words: tuple[str, ...]
    needed: bool


def list_keys() -> list[Key]:
    """Return every key in the order of the schema; NAME and N stand for what the file names or numbers."""
    return list(_walk_keys(HardwareProfile, ""))


def keys_table() -> str:
    """Return the keys as tables in Markdown, one for each block, as the README shows them."""
    blocks: dict[str, list[Key]] = {}
    for key in list_keys():
        blocks.setdefault(key.key.split(".")[0] if "." in key.key else "", []).append(key)
    parts = []
    for block, keys in blocks.items():
        about = f"### `{block}`\n\n{_describe_block(block)}\n\n" if block else ""
        rows = [f"| `{key.key}`{' *' if key.needed else ''} | {key.unit} | {_explain_key(key)} |" for key in keys]
        parts.append(about + "\n".join(["| key | unit | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a profile file (draft 2020-12), for editors and other tools."""
    schema = HardwareProfile.model_json_schema(by_alias=True)
    _drop_defaults(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_template(path: str | os.PathLike[str], like: HardwareProfile | None = None) -> int:
    """Write a profile to fill in, every key with its meaning; return the number of keys.

    Args:
        path: a .yaml file that does not exist yet.
        like: a profile whose facts are filled in; by default everything is unpublished.

    Raises:
        FileError: the file exists, is no .yaml file, or cannot be written.
    """
    target = Path(path)
    if target.suffix not in (".yaml", ".yml"):
        raise FileError(f"file '{target}': a profile is a .yaml file; choose such a name")
    if target.exists():
        raise FileError(f"file '{target}': exists already; choose another name, or remove it first")
    text = template_text(target.stem, target.name, like)
    with replace_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return len(list_keys())


def template_text(name: str, file: str, like: HardwareProfile | None = None) -> str:
    """Return the text of a profile to fill in; it loads as it is."""
    head = HEAD.format(file=file) + (
        f"# The facts are those of {like.name}; change what is yours, and its source.\n" if like else ""
    )
    data = like.model_dump(by_alias=True) if like else {}
    data |= {"name": name, "schema": 1, "meta": {**data.get("meta", {}), "aliases": ()}}
    return head + "\n".join(_write_block(HardwareProfile, data, name, 0, ())) + "\n"


# --------------------------------------------------------------------------------------------------------------- keys


def _walk_keys(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner, many = _inner(field)
        if inner is None or issubclass(inner, Fact):
            unit = unit_of(field) if many != "dict" else ("chip" if name == "boards" else "any")
            yield Key(
                key=f"{key}.NAME" if many == "dict" else key,
                unit=unit,
                meaning=field.description or "",
                words=words_of(field),
                needed=field.is_required(),
            )
        elif many == "tuple" and issubclass(inner, CoreLimits):
            own = [k for k in _walk_keys(inner, f"{key}.NAME.") if k.key.rsplit(".", 1)[-1] not in CoreLimits.model_fields]
            yield from own
            meaning = "any key of `core`, where the group differs"
            yield Key(key=f"{key}.NAME.*", unit="", meaning=meaning, words=(), needed=False)
        else:
            yield from _walk_keys(inner, f"{key}.N." if many == "tuple" else f"{key}.")


def _inner(field: FieldInfo) -> tuple[type[BaseModel] | None, str]:
    """Return the model that a field holds, and whether it holds a "dict" or a "tuple" of it; None for a plain value."""
    kinds = [field.annotation, *get_args(field.annotation)]
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    origin = getattr(field.annotation, "__origin__", None)
    many = {dict: "dict", tuple: "tuple"}.get(origin, "") if models and origin else ""
    return (models[0] if models else None), many


def _describe_block(block: str) -> str:
    inner, _ = _inner(HardwareProfile.model_fields[block])
    described = HardwareProfile.model_fields[block].description
    return _join_docstring(inner) if inner is not None and not issubclass(inner, Fact) else f"{described}."


def _join_docstring(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _explain_key(key: Key) -> str:
    unexplained = [word for word in key.words if f"`{word}`" not in key.meaning]
    return key.meaning + (f": {', '.join(f'`{word}`' for word in key.words)}" if unexplained else "")


def _drop_defaults(schema: Any) -> None:
    """Drop the defaults of facts: each is the same unpublished fact, written out."""
    if isinstance(schema, dict):
        if isinstance(schema.get("default"), dict):
            del schema["default"]
        for inner in schema.values():
            _drop_defaults(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _drop_defaults(inner)


# ------------------------------------------------------------------------------------------------------------ template


def _write_block(model: type[BaseModel], data: Mapping[str, Any], name: str, depth: int, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a block: each key under a comment with its meaning."""
    pad = "  " * depth
    for field_name, field in model.model_fields.items():
        label = field.alias or field_name
        inner, many = _inner(field)
        value = data.get(label)
        comment = f"{pad}# {_explain_key(_as_key(label, field))}{' (needed)' if field.is_required() else ''}"
        if inner is None:
            yield comment
            yield f"{pad}{label}: {_flow(_choose_plain(field, value, name))}"
        elif issubclass(inner, Fact) and not many:
            yield comment
            yield f"{pad}{label}: {_flow(_choose_fact(field, value, (*path, label)))}"
        elif not many and (value or field.annotation is inner):
            yield from ["", f"# {_join_docstring(inner)}"] if depth == 0 else [comment]
            yield f"{pad}{label}:"
            yield from _write_block(inner, value or {}, name, depth + 1, (*path, label))
        elif value:
            yield from ["", comment] if depth == 0 else [comment]
            yield f"{pad}{label}:"
            yield from _write_items(many, value, depth)
        else:
            yield from ["", comment] if depth == 0 else [comment]
            example = [f"{label}:", *_write_example(label, inner, many)]
            yield from (f"{pad}# {line}" for line in example)


def _write_items(many: str, items: Any, depth: int) -> Iterator[str]:
    pad = "  " * (depth + 1)
    if many == "dict":
        yield from (f"{pad}{label}: {_flow(_simplify(fact))}" for label, fact in items.items())
        return
    for item in items:
        known = {label: value for label, value in item.items() if not isinstance(value, dict) or value["value"] is not None}
        lines = _sort_lines([f"{label}: {_flow(_simplify(value))}" for label, value in known.items()])
        yield f"{pad}- {lines[0]}"
        yield from (f"{pad}  {line}" for line in lines[1:])


def _sort_lines(lines: list[str]) -> list[str]:
    """Put the name of an item first, then its count and role."""
    first = ("name:", "task:", "count:", "role:")
    return sorted(lines, key=lambda line: next((i for i, start in enumerate(first) if line.startswith(start)), len(first)))


def _write_example(label: str, inner: type[BaseModel], many: str) -> list[str]:
    """Return the lines of an example of a list, a table or a block that is left out."""
    if many == "dict":
        unit = "chip" if label == "boards" else "mW"
        return [f"  some_name: {{value: 1, unit: {unit}, source: datasheet, evidence: vendor}}"]
    own = {name: field for name, field in inner.model_fields.items() if name not in CoreLimits.model_fields}
    lines = []
    for name, field in own.items():
        kind, _ = _inner(field)
        lines += [
            f"# {_explain_key(_as_key(name, field))}",
            f"{name}: {_flow(_choose_fact(field, None, ()) if kind else 'some name')}",
        ]
    if not many:
        return [f"  {line}" for line in lines]
    more = ["# and any key of `core` that differs"] if issubclass(inner, CoreLimits) else []
    return [f"  {lines[0]}", f"  - {lines[1]}", *(f"    {line}" for line in lines[2:] + more)]


def _as_key(label: str, field: FieldInfo) -> Key:
    return Key(key=label, unit="", meaning=field.description or "", words=words_of(field), needed=field.is_required())


def _choose_plain(field: FieldInfo, value: Any, name: str) -> Any:
    """Return the value of a key that holds no fact: `value`, else its default, else the name of the profile."""
    if value is not None:
        return list(value) if isinstance(value, tuple) else value
    default = field.get_default(call_default_factory=True)
    return name if field.is_required() else list(default) if isinstance(default, tuple) else default


def _choose_fact(field: FieldInfo, fact: Any, path: tuple[str, ...]) -> Any:
    """Return the fact of a key: `fact`, else a guess for a needed key, else an unpublished one."""
    if fact is not None:
        return _simplify(fact)
    if path in GUESSES:
        return {"value": GUESSES[path], "unit": unit_of(field), **GUESS}
    return {"value": None, "unit": unit_of(field), "evidence": UNPUBLISHED}


def _simplify(value: Any) -> Any:
    """Return a fact, or a part of it, as written in a file: no empty source, lists for sets, 3 for 3.0."""
    if isinstance(value, dict):
        return {key: _simplify(part) for key, part in value.items() if not (key == "source" and part is None)}
    if isinstance(value, tuple):
        return list(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()
