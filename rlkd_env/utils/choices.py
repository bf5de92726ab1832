"""The names that options may take and the defaults that they share with what they set; imports nothing heavy.

A command's ``--help`` shows them, and so it need not import PyTorch.
"""

from __future__ import annotations

import math
from typing import Literal

Augmentation = Literal["auto", "none", "flip", "crop_flip", "resized_crop"]
AutoAugment = Literal["none", "randaugment", "trivialaugment"]
DamagedImages = Literal["refuse", "skip"]
Precision = Literal["auto", "float32", "bfloat16"]
MemoryFormat = Literal["auto", "contiguous", "channels_last"]
ScheduleName = Literal["cosine", "step", "constant"]
OptimizerName = Literal["sgd", "adam", "adamw", "dot"]
TeacherWeights = Literal["mean", "entropy"]
"""How the logits of several teachers are averaged: alike, or by how sure each is of an instance."""
Temperatures = Literal["shared", "separate"]
"""What is chosen for an instance: one temperature for teacher and student, or one for each."""
ActionScale = Literal["log", "linear"]
AroundLevel = Literal["keep", "free"]
"""Whether an agent around a rule keeps the batch's mean of the logarithms of the rule's temperatures or moves it."""
ActionKind = Literal["normalized", "temperature"]
"""What an environment's actions are: numbers in [-1, 1] that stand for temperatures on a log scale, or temperatures."""
ObservationKind = Literal["batch", "flat"]
"""What an environment of one batch shows: a row for every instance, or all rows one after another."""
Acting = Literal["mean", "sample"]
"""How an agent acts while it does not learn: by its policy's mean, or by draws from its policy's distribution."""
BatchContent = Literal["pairs", "all"]
"""What an exploring epoch draws: mixed pairs alone, or all images with the mixed ones among them."""
TrackerName = Literal["wandb", "mlflow"]
"""Where the figures of runs are collected beside their folders."""
KeepEpoch = Literal["auto", "last", "best"]
KeptEpoch = Literal["last", "best"]
"""Which student of a run is kept: that of its last epoch, or that of the best one on the validation images."""
Keep = Literal["best", "average-weights", "ensemble"]
"""What is kept of a population: its best student, the average of all weights, or all of them as one."""
RunMode = Literal["auto", "stacked", "workers", "serial"]
"""How several runs are computed: together, in processes, or one after the other."""
ExportFormat = Literal["torch-export", "onnx", "state-dict"]
"""How a student is written for use elsewhere."""
PolicyForm = Literal["constant", "linear", "context", "instances"]
"""What the coefficients of an evolved policy depend on."""

USUAL_MILESTONES = (150 / 240, 180 / 240, 210 / 240)
"""Shares of a run after which the usual CIFAR-100 recipe lowers the learning rate."""
PAPER_FEATURES = ("teacher_performance", "student_performance", "student_uncertainty", "progress")
"""The state of arXiv 2407.00115, section 3.2, and the run's progress, which makes it Markov in time."""
COEFFICIENT_FEATURES = ("student_performance", "teacher_uncertainty", "logit_correlation")
"""Features that have a coefficient in log T unless others are chosen."""
DECISIONS = 20
"""Actions that a run takes from an agent that sets coefficients."""
COEFFICIENT_WIDTH = math.log(2.0)
"""Logarithm of the most that coefficients multiply or divide the schedule's temperatures by."""
AGENT_WIDTH = math.log(2.0) / 2.0
"""Logarithm of the most that an agent multiplies or divides the temperatures by that it acts around."""
ANNEAL_IMAGES, ANNEAL_REGIONS = ("3s", "0.35s"), (0.5, 0.5)
"""Temperatures at the start and the end of an annealed run: of images in mean standard deviations of the teacher's
logits; those of detectors' regions stay the same, since falling ones did worse."""
ANNEAL_LONG_RUN = (10.0, 12.0)
"""Epochs, and updates for each class, from which an annealed run of images starts as hot as it may."""
ANNEAL_SHAPE = "linear"
"""How the logarithm of the temperature falls in between."""
ANNEAL_OWN_SPREAD = 0.5
"""Power with which an image's temperatures follow the deviation of its own logits, those of either network."""
