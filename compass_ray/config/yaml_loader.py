"""YAML reader for settings that rejects duplicate keys and texts that expand beyond any settings.

PyYAML silently uses the last of equal keys. A few lines of nested aliases can describe billions of values, and PyYAML, the
validation and an error text would follow them all.
"""

from __future__ import annotations

from typing import Any

import yaml

from compass_ray.config.base import ConfigError

MAX_DEPTH = 32
"""Maximum depth of nested lists and sections; no setting is deeper than 8."""
_MAX_VALUES = 100_000
"""Maximum number of values with aliases expanded."""
_COUNTING = -1


def read_yaml(text: str) -> Any:
    """Parse a text.

    Raises:
        ConfigError: a section has a key twice, the text is nested too deeply or too large, or a number is no valid value.
        yaml.YAMLError: the text is not YAML.

    >>> read_yaml("train: {epochs: 2}")
    {'train': {'epochs': 2}}
    """
    try:
        return yaml.load(text, Loader=_SettingsLoader)
    except ConfigError:
        raise
    except ValueError as error:  # PyYAML makes numbers and dates of texts that look like them
        raise ConfigError(f"{_describe(error)}; write a shorter number, an existing date, or the text in quotes") from None


def _describe(error: ValueError) -> str:
    """What is wrong with a number or a date, without Python's advice on its limits."""
    reason = str(error)
    return "a number has more digits than can be read" if "int_max_str_digits" in reason else f"a value is invalid ({reason})"


class _SettingsLoader(yaml.SafeLoader):
    """Checks depth, size and keys as written, before an anchor is merged into them."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _count_values(node, {}) > _MAX_VALUES:
            raise ConfigError(f"the value has more than {_MAX_VALUES} entries with its aliases expanded; write fewer aliases")
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise ConfigError(f"line {line}: more than {MAX_DEPTH} levels of lists or sections; no setting is that deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ConfigError(f"line {line}: {key.value!r} is already set in line {lines[key.value]}; remove one of the two")
            lines[key.value] = line
        return node


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values below a node with aliases expanded. ``known`` has the number of each node that was counted."""
    number = id(node)
    if known.get(number) == _COUNTING:
        raise ConfigError(f"line {node.start_mark.line + 1}: an alias refers to a list or section that contains it; remove it")
    if number not in known:
        known[number] = _COUNTING
        known[number] = 1 + sum(_count_values(each, known) for each in _children(node))
    return known[number]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
