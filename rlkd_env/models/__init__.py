"""Networks by name, how they are computed, and how they are stored."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.models.create import (
        MODELS as MODELS,
        check_model as check_model,
        create_model as create_model,
        file_stem as file_stem,
        is_detector as is_detector,
        is_module_path as is_module_path,
    )
    from rlkd_env.models.engine import Engine as Engine, choose_engine as choose_engine
    from rlkd_env.models.storage import (
        load_network as load_network,
        load_student as load_student,
        save_network as save_network,
    )
    from rlkd_env.models.weights import (
        load_shared_weights as load_shared_weights,
        read_state_dict as read_state_dict,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
