"""Hypothesis strategies for the windows of convolutions and pooling."""

from __future__ import annotations

from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.problem import Conv


@st.composite
def convolutions(draw, in_channels, out_channels, groups=1, *, pooling=False):
    """Any kernel up to 5×5, stride, dilation and uneven padding on odd and even images.

    With `pooling` every window holds at least one pixel.
    """
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (5, 5), (1, 4), (2, 3)]))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (3, 3), (3, 1)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3), (3, 2)]))
    padding = draw(st.one_of(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2)]),
                             st.tuples(*[st.integers(0, 3)] * 4)))
    if pooling:
        padding = tuple(min(side, kernel[axis % 2] - 1) if dilation == (1, 1) else 0
                        for axis, side in enumerate(padding))
    height, width = (
        size_for(draw(st.integers(1, largest)), kernel[axis], stride[axis], dilation[axis],
                 padding[axis] + padding[axis + 2]) + draw(st.integers(0, stride[axis] - 1))
        for axis, largest in enumerate((20, 40))
    )
    return Conv(draw(st.integers(1, 2)), in_channels, height, width, out_channels, kernel, stride, padding, dilation,
                groups)


@st.composite
def pointwise_problems(draw):
    """1×1 convolutions of stride 1."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    return Conv(
        batch=draw(st.integers(1, 2)), in_channels=groups * draw(st.integers(1, 20)), height=draw(st.integers(1, 17)),
        width=draw(st.integers(1, 17)), out_channels=groups * draw(st.integers(1, 40)), groups=groups,
    )


def size_for(out_size, kernel, stride, dilation, padding):
    """The smallest image side, at least 1, that gives out_size or more."""
    return max(1, (out_size - 1) * stride + (kernel - 1) * dilation + 1 - padding)
