"""Calibrators by name. To add one, write a subclass of ``Calibrator`` and add a line to ``CALIBRATORS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlkd_env.utils.registry import Registry, subclass_of

if TYPE_CHECKING:
    from rlkd_env.credit.base import Calibrator
    from rlkd_env.credit.return_decomposition import ReturnDecomposition

CALIBRATORS: Registry[type[Calibrator] | type[ReturnDecomposition]] = Registry(
    "calibrator",
    {
        "return_decomposition": "rlkd_env.credit.return_decomposition:ReturnDecomposition",
        "uniform": "rlkd_env.credit.base:Uniform",
        "last_layer": "rlkd_env.credit.first_order:LastLayer",
        "gradient": "rlkd_env.credit.first_order:Gradient",
        "counterfactual": "rlkd_env.credit.counterfactual:Counterfactual",
    },
    subclass_of("rlkd_env.credit.base:Calibrator", "rlkd_env.credit.return_decomposition:ReturnDecomposition"),
)
"""``return_decomposition``: the paper's, learned online; ``uniform``: everyone earns the batch reward (the control);
``last_layer`` and ``gradient``: first order, from the update; ``counterfactual``: the truth, for small students."""
