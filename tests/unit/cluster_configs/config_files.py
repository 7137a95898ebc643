"""Paths and parsing of the cluster files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "cluster_configs"


def load(name: str) -> Any:
    """A YAML file of cluster_configs."""
    return yaml.safe_load((CONFIGS / name).read_text("utf-8"))


def pin(package: str) -> str:
    """The version that constraints.txt names."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    (version,) = (line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
    return version
