"""Cross-entropy of scores by class, with one label a sample or one at each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spear_deploy.data.labels import NO_LABEL

if TYPE_CHECKING:
    import torch


def cross_entropy(logits: torch.Tensor, y: torch.Tensor, **options: Any) -> torch.Tensor:
    """Return the cross-entropy of all labelled samples, or steps.

    Args:
        logits: (B, classes) or (B, T, classes).
        y: (B,) or (B, T) labels.
        options: of `torch.nn.functional.cross_entropy`, such as the reduction.
    """
    import torch

    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten(), ignore_index=NO_LABEL, **options)
