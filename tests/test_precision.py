"""Every way into the number formats refuses a name that is none."""

import pytest
import torch

from mvf.device import autocast, resolve_precision


@pytest.mark.parametrize("function", [autocast, resolve_precision])
def test_an_unknown_precision_names_the_known_ones(function):
    with pytest.raises(ValueError, match='precision must be one of auto, fp32, bf16, fp16, got "fp8"'):
        function("fp8", torch.device("cpu"))
