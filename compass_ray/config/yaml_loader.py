"""YAML reader that rejects duplicate keys; PyYAML silently uses the last one."""

from __future__ import annotations

from typing import Any

import yaml

from compass_ray.config.base import ConfigError


def read_yaml(text: str) -> Any:
    """Parse a text.

    Raises:
        ConfigError: a section has a key twice.
        yaml.YAMLError: the text is not YAML.

    >>> read_yaml("train: {epochs: 2}")
    {'train': {'epochs': 2}}
    """
    return yaml.load(text, Loader=_UniqueKeyLoader)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Checks keys as written, before an anchor is merged into them."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ConfigError(f"line {line}: {key.value!r} is already set in line {lines[key.value]}; remove one of the two")
            lines[key.value] = line
        return node
