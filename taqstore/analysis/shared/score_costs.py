"""Static scores that an allocation can be chosen by; imports nothing, for a table lists them."""

from __future__ import annotations

SCORES = {
    "weight_error": "",
    "imatrix_error": "",
    "moment_error": "",
    "weight_relative": "weight_power",
    "imatrix_relative": "imatrix_power",
    "moment_relative": "output_power",
}
"""Static costs: a score as it is, or by a power that it is a share of."""
