"""Linear maps of zeros and ones: views, copies, padding, reading and writing by index."""

from __future__ import annotations

from typing import Final

from clarke.kinks.smooth.model import aten

# Linear maps whose matrix has one 1 in a row, or none; and constants added or put in place.
STRUCTURAL: Final = aten(
    # Views
    """
    _reshape_alias.default alias.default diagonal.default expand.default lift.default
    lift_fresh.default permute.default select.int slice.Tensor split.Tensor
    split_with_sizes.default squeeze.default squeeze.dim squeeze.dims squeeze_.default
    squeeze_.dim squeeze_.dims t.default t_.default transpose.int transpose_.default unbind.int
    unfold.default unsqueeze.default unsqueeze_.default view.default view_as_complex.default
    view_as_real.default
    """,
    # Gradient stopped on purpose (autograd's own saved values arrive as detach too)
    """
    detach.default detach_.default detach_copy.default
    """,
    # Copies (casts from floating point to integers: CONDITIONAL)
    """
    _foreach_clone.default _lazy_clone.default _pin_memory.default _reshape_copy.default
    _to_copy.default _unsafe_view.default alias_copy.default clone.default copy_.default
    diagonal_copy.default expand_copy.default lift_fresh_copy.default narrow_copy.default
    permute_copy.default select_copy.int slice_copy.Tensor split_copy.Tensor
    split_with_sizes_copy.default squeeze_copy.default squeeze_copy.dim squeeze_copy.dims
    t_copy.default transpose_copy.int unbind_copy.int unfold_copy.default unsafe_split.Tensor
    unsafe_split_with_sizes.default unsqueeze_copy.default view_as_real_copy.default
    view_copy.default
    """,
    # Rearranging and joining
    """
    _pack_padded_sequence.default block_diag.default cat.default channel_shuffle.default
    complex.default diag_embed.default flip.default im2col.default pixel_shuffle.default
    pixel_unshuffle.default repeat.default roll.default rot90.default stack.default
    """,
    # Padding and triangles
    """
    constant_pad_nd.default lu_unpack.default reflection_pad1d.default reflection_pad2d.default
    reflection_pad3d.default replication_pad1d.default replication_pad2d.default
    replication_pad3d.default tril.default tril_.default triu.default triu_.default
    """,
    # Constants written in place or in part
    """
    _foreach_zero_.default fill.Scalar fill.Tensor fill_.Scalar fill_.Tensor zero.default
    zero_.default
    """,
    # Reading and writing at constant indices (writes that may overlap are CONDITIONAL)
    """
    _unsafe_index.Tensor _unsafe_masked_index.default diagonal_backward.default
    diagonal_scatter.default gather.default index.Tensor index_fill.int_Scalar
    index_fill.int_Tensor index_fill_.int_Scalar index_fill_.int_Tensor index_select.default
    masked_fill.Scalar masked_fill.Tensor masked_fill_.Scalar masked_fill_.Tensor
    masked_scatter.default masked_scatter_.default masked_select.default scatter.value
    scatter_.value select_backward.default select_scatter.default slice_backward.default
    slice_scatter.default take.default where.self
    """,
)
