"""Networks by name, one file a family. A new network of ours is a factory and a line in its family's table."""

from rlkd_env.models.create import MODELS, check_model, create_model, file_stem, is_detector, is_module_path

__all__ = ["MODELS", "check_model", "create_model", "file_stem", "is_detector", "is_module_path"]
