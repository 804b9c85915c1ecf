"""The gradient audit: cases (operations.py, models.py) and the judges that every backward is held
against (judges.py)."""

from .case import Case, Draw, Inputs, matrix
from .judges import (
    CASES,
    FLOOR,
    MODEL_CASES,
    OPTIMISER_CASES,
    TOLERANCES,
    Deviation,
    assert_close,
    check_page,
    check_stored,
    check_twin,
    check_vjp,
    compare,
    compare_all,
    extrapolated,
    format_table,
    norm,
    reference_page,
    reference_twin,
    run,
    stored,
    stored_folder,
    to_json,
    unproven,
    upstream,
)

__all__ = [
    "CASES", "FLOOR", "MODEL_CASES", "OPTIMISER_CASES", "TOLERANCES", "Case", "Deviation", "Draw", "Inputs", "assert_close", "check_page",
    "check_stored", "check_twin", "check_vjp", "compare", "compare_all", "extrapolated", "format_table", "matrix", "norm",
    "reference_page", "reference_twin", "run", "stored", "stored_folder", "to_json", "unproven", "upstream",
]  # fmt: skip
