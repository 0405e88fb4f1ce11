from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_watch import Watch


@pytest.fixture(scope="session")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """Watches this process while it parses; an input that breaks a promise is left beside its folder."""
    return Watch(tmp_path_factory.mktemp("fuzz") / "in")


@pytest.fixture(scope="session")
def corpus() -> Path:
    return Path(__file__).with_name("corpus")
