"""The loss of connectionist temporal classification by its recursion.

Graves and others 2006, section 4.1: the probability of a labelling is a sum over alignments,
computed by a recursion over time in the labels with blanks between them. PyTorch's own derivative
is that of log_softmax followed by the loss, without the part that log_softmax takes away again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from clarke.kinks.model import Call

_NEVER: Final = float("-inf")


def _lengths(value: Any) -> list[int]:
    return [int(v) for v in (value.tolist() if isinstance(value, torch.Tensor) else value)]


def _states(targets: torch.Tensor, lengths: list[int], blank: int) -> torch.Tensor:
    """(batch, 2 * longest + 1) labels with blanks between and around them, padded with blanks."""
    states = torch.full((len(lengths), 2 * max(lengths, default=0) + 1), blank)
    start = 0
    for row, length in enumerate(lengths):
        own = targets[row, :length] if targets.dim() > 1 else targets[start : start + length]
        states[row, 1 : 2 * length : 2] = own.to(torch.int64)
        start += length
    return states


def _log_sum(parts: list[torch.Tensor]) -> torch.Tensor:
    """Elementwise logarithm of a sum of exponentials; -inf without a slope where all are -inf."""
    stacked = torch.stack(parts)
    top = stacked.detach().amax(0)
    top = torch.where(top == _NEVER, torch.zeros_like(top), top)
    total = torch.exp(stacked - top).sum(0)
    some = total > 0
    logarithm = torch.log(torch.where(some, total, torch.ones_like(total)))
    return torch.where(some, logarithm + top, torch.full_like(total, _NEVER))


def _moved(alpha: torch.Tensor, places: int) -> torch.Tensor:
    """Shifted to the right, with -inf put in from the left."""
    width = alpha.shape[1]
    padding = torch.full((alpha.shape[0], min(places, width)), _NEVER, dtype=alpha.dtype)
    return torch.cat([padding, alpha[:, : max(width - places, 0)]], 1)


def ctc_losses(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """_ctc_loss: the negative logarithm of the probability of each target.

    The second result, a table for PyTorch's own backward pass, is left empty.
    """
    log_probs, targets = call.args[0], call.args[1]
    times, lengths = _lengths(call.args[2]), _lengths(call.args[3])
    blank = int(call.arg(4, "blank", 0))
    batch = log_probs.shape[1]
    states = _states(targets, lengths, blank)
    width = states.shape[1]
    # A label may be entered two states on, unless that is a blank or repeats the last label.
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    never = torch.full((batch, width), _NEVER, dtype=log_probs.dtype)
    started = torch.arange(width)[None, :] < 2
    alpha, last = never, never
    for step in range(log_probs.shape[0]):
        emitted = log_probs[step].gather(1, states)
        if step == 0:
            alpha = torch.where(started, emitted, never)
        else:
            two = torch.where(skips, _moved(alpha, 2), never)
            reached = _log_sum([alpha, _moved(alpha, 1), two])
            # Adding to -inf would leave a slope behind.
            alpha = torch.where(reached == _NEVER, never, reached + emitted)
        at_end = torch.tensor([t == step + 1 for t in times])[:, None]
        last = torch.where(at_end, alpha, last)
    end = torch.tensor([[2 * n] for n in lengths])
    final = last.gather(1, end)
    before = torch.where(end > 0, last.gather(1, (end - 1).clamp(min=0)), never[:, :1])
    losses = -_log_sum([final, before])[:, 0]
    return losses, torch.zeros(0, dtype=log_probs.dtype)
