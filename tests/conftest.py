"""Ops from outside the repository join the tests: CUSTOM_OPS_TEST_MODULES names their files."""

import importlib
import os

for module in filter(None, os.environ.get("CUSTOM_OPS_TEST_MODULES", "").split(",")):
    importlib.import_module(module)
