"""What the arms of the bench run on."""

from __future__ import annotations

import pytest
from small_bench import bench_config

from experiments.commands.bench.benched_run import build_bench_run


@pytest.mark.slow
def test_random_images_need_no_data() -> None:
    config = bench_config("--preset", "cifar100/resnet56-resnet20/dkd", "--random-images", "--student", "resnet8")
    run = build_bench_run(config)
    assert run.splits.image_shape == (3, 32, 32)
    assert sum(parameter.numel() for parameter in run.teacher.parameters()) == 861_620
    assert config.run.distillation.method == "dkd"
