"""The pack: mappings of ops that torch's exporters get wrong or do not know; a topic a module.

Each module declares its mappings with `packed`; importing this package finds them all.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
