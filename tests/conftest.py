"""What the tests share.

Ops from outside the repository join them: CUSTOM_OPS_TEST_MODULES names their files.
"""

import importlib
import os
import warnings
from collections.abc import Iterator

import pytest
import torch

for module in filter(None, os.environ.get("CUSTOM_OPS_TEST_MODULES", "").split(",")):
    importlib.import_module(module)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Draws the same numbers each time, and hides what torch's exporters always warn of."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*legacy TorchScript-based ONNX export")
        warnings.filterwarnings("ignore", message=".*shape inference of custom_ops")
        yield
