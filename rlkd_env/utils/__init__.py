"""What every room uses: named parts, files, seeds, and draws that follow from a seed."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.utils.files import (
        read_json as read_json,
        read_tensors as read_tensors,
        tensors_hash as tensors_hash,
        write_atomically as write_atomically,
        write_json as write_json,
        write_tensors as write_tensors,
    )
    from rlkd_env.utils.lazy import lazy_exports as lazy_exports
    from rlkd_env.utils.randomness import is_stochastic as is_stochastic, seeded as seeded
    from rlkd_env.utils.registry import Registry as Registry, import_by_path as import_by_path
    from rlkd_env.utils.seeds import mixed_seed as mixed_seed, seeded_generator as seeded_generator
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
