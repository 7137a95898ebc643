"""Weights in pickle files: code in them never runs, and no error advises to load them unsafely."""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from compass_ray.adapters.peft_io import read_adapter
from compass_ray.config import EmbedConfig, TrainConfig
from compass_ray.models.base_model import load_base
from compass_ray.models.encoder import Encoder
from compass_ray.models.errors import ModelError, describe_loading_error
from compass_ray.models.model_resolver import ModelRole, resolve_model

PACKAGE = Path(__file__).parents[3] / "compass_ray"
UNSAFE = ("weights_only", "allow_pickle", "trust_remote_code=True")


class _Command:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def _pickled(part: ModelRole, folder: Path, mark: Path) -> str:
    """A copy of one of the atlas's models whose weights are a pickle with a command."""
    shutil.copytree(resolve_model("atlas", part), folder)
    for file in folder.rglob("model.safetensors"):
        file.unlink()
        torch.save({"weight": _Command(mark)}, file.with_name("pytorch_model.bin"))
    return str(folder)


def test_a_pickle_with_code_is_refused_with_safe_advice(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    base, encoder = (_pickled(part, tmp_path / part, mark) for part in ("base_model", "encoder"))
    for load in (
        lambda: load_base(TrainConfig(base_model=base), device="cpu"),
        lambda: Encoder(EmbedConfig(encoder=encoder), device="cpu"),
    ):
        with pytest.raises(ModelError, match=r"pickle file.*convert it to safetensors") as error:
            load()
        assert not [word for word in UNSAFE if word in str(error.value)]
    assert not mark.exists()


def test_an_adapter_in_a_pickle_is_refused_with_safe_advice(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}')
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"pickle file adapter_model\.bin.*convert it to adapter_model\.safetensors"):
        read_adapter(tmp_path)


def test_the_library_s_advice_is_left_out(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": _Command(tmp_path / "ran")}, buffer)
    buffer.seek(0)
    with pytest.raises(Exception, match="weights_only") as caught:
        torch.load(buffer, weights_only=True)
    remote = ValueError("The repository contains custom code.\nPlease pass the argument `trust_remote_code=True` to allow it.")
    for error in (caught.value, remote):
        text = describe_loading_error(error)
        assert "\n" not in text
        assert not [word for word in UNSAFE if word in text]
    assert describe_loading_error(OSError("first\nsecond")) == "first"


def test_every_file_of_arrays_or_weights_is_read_safely() -> None:
    """Each call of torch.load has weights_only=True, each of numpy that reads or writes an array allow_pickle=False."""
    no_pickle = ("allow_pickle", False)
    needed = {"torch.load": ("weights_only", True)} | dict.fromkeys(("np.load", "np.save", "np.lib.format.read_array"), no_pickle)
    calls = [
        (file, node)
        for file in sorted(PACKAGE.rglob("*.py"))
        if re.search(r"\b(load|loads|save|read_array)\(", text := file.read_text("utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (*needed, "pickle.load", "pickle.loads", "joblib.load")
    ]
    assert len(calls) >= 5
    for file, call in calls:
        where = f"{file.relative_to(PACKAGE)}:{call.lineno} {ast.unparse(call)}"
        assert ast.unparse(call.func) in needed, where
        name, value = needed[ast.unparse(call.func)]
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get(name) == str(value), where
