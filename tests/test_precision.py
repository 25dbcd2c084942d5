"""Every way into the number formats refuses an unknown name."""

import pytest
import torch

from mvf.device import autocast
from mvf.models.engine import resolve_compute


@pytest.mark.parametrize("function", [autocast, lambda name, device: resolve_compute("torch", name, device)])
def test_an_unknown_precision_names_the_known_ones(function):
    with pytest.raises(ValueError, match='precision must be one of .*fp32, bf16, fp16, got "fp8"'):
        function("fp8", torch.device("cpu"))
