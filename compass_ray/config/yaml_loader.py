"""YAML as settings are written in it, without a key that stands twice, of which YAML's own reader takes the last in silence."""

from __future__ import annotations

from typing import Any

import yaml

from compass_ray.config.base import ConfigError


def read_yaml(text: str) -> Any:
    """The tree of a text.

    Raises:
        ConfigError: a key stands twice in one section.
        yaml.YAMLError: the text is no YAML.

    >>> read_yaml("train: {epochs: 2}")
    {'train': {'epochs': 2}}
    """
    return yaml.load(text, Loader=_EachKeyOnce)


class _EachKeyOnce(yaml.SafeLoader):
    """Looks at keys as they are written, before an anchor is merged into them."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ConfigError(f"line {line}: {key.value!r} stands in line {lines[key.value]} already; keep one of the two")
            lines[key.value] = line
        return node
