"""Knowledge-distillation methods, one file each and a line in ``METHODS``."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.methods.base import Method as Method, Pair as Pair, StudentChange as StudentChange
    from rlkd_env.methods.composed import Composed as Composed
    from rlkd_env.methods.create import (
        METHODS as METHODS,
        change_of_student as change_of_student,
        check_method as check_method,
        create_method as create_method,
    )
    from rlkd_env.methods.detection.box import BoundedBoxes as BoundedBoxes
    from rlkd_env.methods.detection.fgd import FGD as FGD
    from rlkd_env.methods.detection.fpn import FPN as FPN
    from rlkd_env.methods.detection.icd.method import ICD as ICD
    from rlkd_env.methods.detection.ld import LD as LD
    from rlkd_env.methods.feature_method import FeatureMethod as FeatureMethod
    from rlkd_env.methods.features.adain import AdaIN as AdaIN
    from rlkd_env.methods.features.at import AT as AT
    from rlkd_env.methods.features.catkd import CATKD as CATKD
    from rlkd_env.methods.features.fitnet import FitNet as FitNet
    from rlkd_env.methods.features.kdsvd import KDSVD as KDSVD
    from rlkd_env.methods.features.nst import NST as NST
    from rlkd_env.methods.features.ofd import OFD as OFD
    from rlkd_env.methods.features.reviewkd import ReviewKD as ReviewKD
    from rlkd_env.methods.features.simkd import SimKD as SimKD
    from rlkd_env.methods.features.srrl import SRRL as SRRL
    from rlkd_env.methods.features.vid import VID as VID
    from rlkd_env.methods.logits.crld import CRLD as CRLD
    from rlkd_env.methods.logits.cross_entropy import CrossEntropy as CrossEntropy
    from rlkd_env.methods.logits.deit import DeiT as DeiT
    from rlkd_env.methods.logits.dist import DIST as DIST
    from rlkd_env.methods.logits.dkd import DKD as DKD, decoupled_divergences as decoupled_divergences
    from rlkd_env.methods.logits.kd import KD as KD, kd_loss as kd_loss
    from rlkd_env.methods.logits.mlkd import MLKD as MLKD
    from rlkd_env.methods.logits.sdd import SDD as SDD
    from rlkd_env.methods.relations.cc import CC as CC
    from rlkd_env.methods.relations.crd import CRD as CRD
    from rlkd_env.methods.relations.pkt import PKT as PKT, pkt_loss as pkt_loss
    from rlkd_env.methods.relations.rkd import RKD as RKD
    from rlkd_env.methods.relations.sp import SP as SP, sp_loss as sp_loss
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
