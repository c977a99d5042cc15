"""One maxpool: its ties, which of them matter, and the linear conditions that those impose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch

from clarke.capture import Ref
from clarke.devices import array_of
from clarke.fast.codes import same_field
from clarke.fast.fingerprints import Fingerprints, groups_of
from clarke.fast.layers import (
    PoolLayer,
    argument_values,
    as_array,
    weight_shape,
    windows_of_conv,
    windows_of_pool,
)
from clarke.fast.ties import Ties, find_ties
from clarke.feasibility import Outcome, find_witness
from clarke.numerics import POOL_MARGIN, POOL_NOISE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.compiled import Compiled
    from clarke.fast.codes import Coder
    from clarke.fast.graph import Graph
    from clarke.fast.scratch import Scratch

Index = Any  # NDArray[np.intp]

_MOST_ROWS = 20_000
_MANY = 64  # elements for each tie from which on whole arrays are quicker


@dataclass(frozen=True, eq=False)
class Rivals:
    """Tied elements whose receptive fields differ from that of the element that AD took.

    All (R,): image, channel, place of AD's element and place of the rival in the pool's input,
    and the window (flat position in the pool's output).
    """

    image: Index
    channel: Index
    chosen: tuple[Index, Index]
    rival: tuple[Index, Index]
    window: Index

    @property
    def windows(self) -> int:
        """Number of windows with at least one rival."""
        return int(np.unique(self.window).size)


def codes_at_hand(
    graph: Graph, layer: PoolLayer, coder: Coder, compiled: Compiled | None = None
) -> Fingerprints | None:
    """The fingerprints of all images, where they cost less than telling which have a tie.

    That is where the maxpool's own convolution reads the images of the batch, and compiled loops
    look at ties and codes together.
    """
    values = as_array(graph.trace.ops[layer.pool].kept[0])
    if values is None or compiled is None or not compiled.can_take(values.size):
        return None
    own = graph.trace.ops[layer.conv].args[0]
    read = isinstance(own, Ref) and graph.maker(layer.conv, 0) is None
    if not read or layer.relu is None or groups_of(graph, layer.conv) != 1:
        return None
    fingerprints = Fingerprints(graph, coder, np.arange(len(values)), len(values))
    return None if fingerprints.outputs(layer.conv) is None else fingerprints


def pool_ties(
    graph: Graph,
    layer: PoolLayer,
    scratch: Scratch,
    compiled: Compiled | None = None,
    known: Fingerprints | None = None,
) -> Ties | None:
    """All ties of a maxpool (after a ReLU: those of positive value); None if out of scope.

    Where the codes of all images are known, ties within one code may be counted only.
    """
    op = graph.trace.ops[layer.pool]
    if isinstance(op.early, Ties) and layer.relu is not None and known is None:
        return op.early
    values, peaks = as_array(op.kept[0]), as_array(op.kept_outputs[0])
    if values is None or peaks is None:
        return None
    windows = windows_of_pool(graph, layer.pool)
    codes = None if known is None else known.outputs(layer.conv)
    rectified = layer.relu is not None
    return find_ties(values, peaks, windows, scratch, compiled, codes, positive=rectified)


def find_rivals(
    graph: Graph,
    layer: PoolLayer,
    ties: Ties,
    coder: Coder,
    compiled: Compiled | None = None,
    known: Fingerprints | None = None,
    whole: Fingerprints | None = None,
) -> Rivals | None:
    """The ties that are left when elements with equal receptive fields are taken together.

    None if there is no fingerprint for what stands before the pool.

    Args:
        graph: The trace.
        layer: The maxpool.
        ties: Its ties.
        coder: Multipliers.
        compiled: Compiled loops, to be used where they fit.
        known: The fingerprints of all images, if `ties` was found with them.
        whole: The same, if there are any of an earlier layer.
    """
    op = graph.trace.ops[layer.pool]
    values, peaks = as_array(op.kept[0]), as_array(op.kept_outputs[0])
    if values is None or peaks is None:
        return None
    if known is None:
        images = ties.images(len(peaks))
        which = np.zeros(len(peaks), dtype=np.intp)
        which[images] = np.arange(images.size)
        fingerprints = Fingerprints(graph, coder, images, len(peaks), whole)
    else:
        fingerprints, which = known, np.arange(len(peaks))
    arrays = (values, peaks)
    groups = groups_of(graph, layer.conv)
    if groups == 1:
        codes = fingerprints.outputs(layer.conv)
        if codes is None:
            return None
        if compiled is None or ties.marks is None or known is not None:
            return _differing(graph, layer, arrays, ties.tied, codes, which)
        geometry = windows_of_pool(graph, layer.pool).geometry
        left = compiled.differing(ties.marks, values, peaks, codes, which, geometry)
        return _differing(graph, layer, arrays, left.places(), codes, which)
    found = []
    size = values.shape[1] // groups
    group = np.asarray(ties.tied // (size * peaks[0, 0].size) % groups)
    for g in np.unique(group):
        codes = fingerprints.outputs(layer.conv, (int(g) * size, int(g + 1) * size))
        if codes is None:
            return None
        found.append(_differing(graph, layer, arrays, ties.tied[group == g], codes, which))
    return _joined(found)


def _differing(
    graph: Graph,
    layer: PoolLayer,
    arrays: tuple[NDArray[Any], NDArray[Any]],
    tied: Index,
    codes: Any,
    which: Index,
) -> Rivals:
    """The rivals among tied windows; `which` says which row of `codes` is each image's."""
    op = graph.trace.ops[layer.pool]
    values, peaks = (a.reshape(-1) for a in arrays)
    windows = windows_of_pool(graph, layer.pool)
    area, width = windows.out[0] * windows.out[1], windows.space[1]
    plane = windows.space[0] * width
    inverse, window = which[tied // arrays[1][:1].size], tied
    if tied.size > codes.size // _MANY:
        # Most ties are of one field; fewer are quickly looked at one by one.
        open_ = ~same_field(codes, windows).reshape(-1)[inverse * area + tied % area]
        window, inverse = tied[open_], inverse[open_]
    map_, rest = np.divmod(window, area)
    row, column = np.divmod(rest, windows.out[1])
    flat, largest = codes.reshape(-1), peaks[window]
    taken = array_of(op.kept_outputs[1].reshape(-1))[window]
    own = flat[inverse * plane + taken]
    corner = (row * windows.stride[0] - windows.padding[0]) * width
    corner += column * windows.stride[1] - windows.padding[1]
    found = []
    for i, j in windows.offsets():
        at = corner + (i * windows.dilation[0] * width + j * windows.dilation[1])
        equal = values.take(map_ * plane + at, mode="clip") == largest
        equal &= _within(row, windows.cut(0, i)[0], windows.out[0])
        equal &= _within(column, windows.cut(1, j)[0], windows.out[1])
        which = np.flatnonzero(equal)
        which = which[flat[inverse[which] * plane + at[which]] != own[which]]
        found.append((which, at[which]))
    which = np.concatenate([w for w, _ in found])
    rival, chosen = np.concatenate([at for _, at in found]), taken[which]
    image, channel = np.divmod(map_[which], arrays[0].shape[1])
    return Rivals(
        image,
        channel,
        (chosen // width, chosen % width),
        (rival // width, rival % width),
        window[which],
    )


def _within(place: Index, inside: slice, count: int) -> NDArray[np.bool_] | bool:
    """Whether rows or columns of windows lie in a range; True where all do."""
    if inside == slice(0, count):
        return True
    found: NDArray[np.bool_] = (place >= inside.start) & (place < inside.stop)
    return found


def _joined(parts: list[Rivals]) -> Rivals:
    if len(parts) == 1:
        return parts[0]

    def both(pairs: list[tuple[Index, Index]]) -> tuple[Index, Index]:
        return (np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]))

    return Rivals(
        np.concatenate([p.image for p in parts]),
        np.concatenate([p.channel for p in parts]),
        both([p.chosen for p in parts]),
        both([p.rival for p in parts]),
        np.concatenate([p.window for p in parts]),
    )


def settle(graph: Graph, layer: PoolLayer, rivals: Rivals) -> torch.Tensor | None:
    """A direction of the layer's weights along which AD's elements win; None if none was found.

    The difference of two tied pre-activations of channel c has, with respect to the channel's
    weights, the difference of the two patches as its gradient (through batch normalisation times
    gamma / deviation: equal values are shifted and scaled alike).
    """
    gamma = None if layer.gamma is None else array_of(layer.gamma.to(torch.float64))
    if gamma is not None and bool((gamma[rivals.channel] == 0).any()):
        return None
    inputs = argument_values(graph, layer.conv, 0)
    array = None if inputs is None else as_array(inputs)
    shape = weight_shape(graph, layer.conv)
    if array is None or shape is None:
        return None
    first = patches(graph, layer, array, shape, rivals, rivals.chosen)
    second = patches(graph, layer, array, shape, rivals, rivals.rival)
    rows = first - second
    if gamma is not None:
        rows *= np.sign(gamma[rivals.channel])[:, None]
    keyed = np.concatenate([rivals.channel[:, None].astype(np.float64), rows], axis=1)
    keyed, kept = np.unique(keyed, axis=0, return_index=True)
    rows, channel = rows[kept], rivals.channel[kept]
    sizes = np.abs(first[kept]).max(axis=1) + np.abs(second[kept]).max(axis=1)
    if len(rows) > _MOST_ROWS:
        return None
    used, block = np.unique(channel, return_inverse=True)
    width = rows.shape[1]
    columns = (block[:, None] * width + np.arange(width)).reshape(-1)
    matrix = scipy.sparse.csr_array(
        (rows.reshape(-1), columns, np.arange(len(rows) + 1) * width),
        shape=(len(rows), len(used) * width),
    )
    matrix.eliminate_zeros()
    found = find_witness(matrix, margin=POOL_MARGIN)
    if found.outcome is not Outcome.WITNESS or found.direction is None:
        return None
    if graph.maker(layer.conv, 0) is not None:
        parts = found.direction.reshape(len(used), width)[block]
        gained = (rows * parts).sum(axis=1)
        if bool((gained <= POOL_NOISE * sizes * np.abs(parts).sum(axis=1)).any()):
            return None
    direction = torch.zeros((shape[0], width), dtype=torch.float64)
    direction[torch.from_numpy(used)] = torch.from_numpy(found.direction.reshape(len(used), width))
    return direction.reshape(shape)


def patches(
    graph: Graph,
    layer: PoolLayer,
    inputs: NDArray[Any],
    shape: tuple[int, ...],
    rivals: Rivals,
    place: tuple[Index, Index],
) -> NDArray[np.float64]:
    """(R, channels of a group * kernel size) what the convolution read for some elements."""
    windows = windows_of_conv(graph, layer.conv, (inputs.shape[2], inputs.shape[3]))
    y, x, inside = windows.places(*place)
    y, x = np.where(inside, y, 0), np.where(inside, x, 0)
    group = rivals.channel // (shape[0] // groups_of(graph, layer.conv))
    channels = group[:, None] * shape[1] + np.arange(shape[1])
    read = inputs[rivals.image[:, None, None], channels[:, :, None], y[:, None], x[:, None]]
    return np.asarray(read * inside[:, None], dtype=np.float64).reshape(len(group), -1)
