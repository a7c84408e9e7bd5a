"""Values in the types of JSON, which has no NaN and no infinity."""

import math
from typing import Any


def plain(value: Any) -> Any:
    """Returns a value in the types of JSON.

    Dicts and lists stay what they are, tuples become lists; numbers that are not finite become
    "nan", "inf" and "-inf", which `float` reads; what JSON does not know becomes its text.
    """
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
