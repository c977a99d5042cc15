"""Small images for the scripts that need some."""

import torch


def shapes(count, size=16):
    """Images of bright boxes and rings on a dark ground."""
    rows = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(rows, rows, indexing="ij")
    found = []
    for _ in range(count):
        a, b = (size * (0.3 + 0.4 * torch.rand(2))).tolist()
        r = 2.0 + 3.0 * torch.rand(()).item()
        if torch.rand(()).item() < 0.5:
            found.append((((x - a).abs() < r) & ((y - b).abs() < r)).float())
        else:
            found.append(((((x - a) ** 2 + (y - b) ** 2).sqrt() - r).abs() < 1.0).float())
    return torch.stack(found)[:, None]
