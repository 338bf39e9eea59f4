"""YAML texts to plain values: no tags, no keys given twice, no endless structures, nothing that JSON lacks."""

from __future__ import annotations

import math
from typing import Any

import yaml

from mneme.errors import BadInput

_DEEPEST = 20


def plain_yaml(text: str, place: str) -> Any:
    """The value of a YAML text from anyone; raises BadInput, with the place, for anything but plain values.

    An alias may stand for a scalar only: lists of lists of aliases would grow without bounds.
    """
    try:
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  a SafeLoader subclass
    except yaml.YAMLError as error:
        raise BadInput(f"{place} is not valid YAML: {' '.join(str(error).split())[:300]}") from error
    except RecursionError:
        raise BadInput(f"{place} is nested too deep: at most {_DEEPEST} levels") from None
    except ValueError as error:  # a date, a number or a tag whose text does not fit
        raise BadInput(f"{place} holds a value that cannot be read ({str(error)[:100]}): put it in quotes") from error
    refuse_odd_values(content, place)
    return content


def refuse_odd_values(value: Any, place: str, depth: int = 0) -> None:
    """Raise BadInput for NaN and infinity, texts that hold a NUL or that UTF-8 cannot write, and endless nesting."""
    if depth > _DEEPEST:
        raise BadInput(f"{place} is nested too deep: at most {_DEEPEST} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{place} holds {value}, which is no value: leave the key out, or give a number")
    if isinstance(value, str) and ("\0" in value or not is_writable(value)):
        raise BadInput(f"{place} holds a text with a NUL or half a character ({value[:40]!a}): take it out")
    if isinstance(value, dict):
        for key, each in value.items():
            refuse_odd_values(key, place, depth + 1)
            refuse_odd_values(each, place, depth + 1)
    if isinstance(value, list | tuple):
        for each in value:
            refuse_odd_values(each, place, depth + 1)


def is_writable(text: str) -> bool:
    """Whether UTF-8 can write the text: no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, and an alias of anything but a scalar."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; an alias may stand for a scalar only."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            known = self.anchors.get(event.anchor)
            if known is not None and not isinstance(known, yaml.ScalarNode):
                raise yaml.composer.ComposerError(
                    None,
                    None,
                    f"alias '{event.anchor[:40]}' stands for more than one value: write it out",
                    event.start_mark,
                )
        return super().compose_node(parent, index)


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands there twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
