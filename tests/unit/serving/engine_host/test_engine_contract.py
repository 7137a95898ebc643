"""The engine of this package, in its thread, passes the contract of all engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compass_ray.engine.protocol import GenerationEngine
from compass_ray.serving.adapter_server import open_generation
from tests.engine_contract import ContractModels, EngineContract, ask, make_contract_models, plain


@pytest.fixture(scope="module")
def contract_models(tmp_path_factory: pytest.TempPathFactory) -> ContractModels:
    return make_contract_models(Path(tmp_path_factory.mktemp("contract")))


@pytest.fixture(scope="module")
def open_fresh(contract_models: ContractModels) -> Callable[[], GenerationEngine]:
    return lambda: open_generation(contract_models.config())


@pytest.fixture(scope="module")
def engine(open_fresh: Callable[[], GenerationEngine]) -> Iterator[GenerationEngine]:
    opened = open_fresh()
    yield opened
    opened.stop()


class TestCompassEngine(EngineContract):
    def test_two_adapters_blend(self, engine: GenerationEngine, contract_models: ContractModels) -> None:
        first, second, _ = contract_models.adapters
        blended, alone = ask(engine, [plain("Habari", first, blend=(second, 0.5)), plain("Habari", first)])
        assert blended.text != alone.text
