"""Knowledge-distillation methods, one file each and a line in ``METHODS``."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.methods.adain import AdaIN as AdaIN
    from rlkd_env.methods.base import Method as Method, Pair as Pair
    from rlkd_env.methods.crd import CRD as CRD
    from rlkd_env.methods.create import METHODS as METHODS, check_method as check_method, create_method as create_method
    from rlkd_env.methods.cross_entropy import CrossEntropy as CrossEntropy
    from rlkd_env.methods.dkd import DKD as DKD, decoupled_divergences as decoupled_divergences
    from rlkd_env.methods.fpn import FPN as FPN
    from rlkd_env.methods.icd.method import ICD as ICD
    from rlkd_env.methods.kd import KD as KD, kd_loss as kd_loss
    from rlkd_env.methods.pkt import PKT as PKT, pkt_loss as pkt_loss
    from rlkd_env.methods.sp import SP as SP, sp_loss as sp_loss
    from rlkd_env.methods.srrl import SRRL as SRRL
    from rlkd_env.methods.vid import VID as VID
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
