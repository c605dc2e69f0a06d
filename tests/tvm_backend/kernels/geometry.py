"""Hypothesis strategies for the windows of convolutions and pooling."""

from __future__ import annotations

from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.problem import Conv, Conv3d


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
def signals(draw, in_channels, out_channels, groups=1):
    """Convolutions of one row: any kernel up to 9, stride, dilation and uneven padding, bands of long signals too."""
    taps, stride = draw(st.sampled_from([1, 2, 3, 3, 9])), draw(st.sampled_from([1, 1, 2, 3, 5]))
    dilation = draw(st.sampled_from([1, 1, 2, 7]))
    before, after = draw(st.one_of(st.just((0, 0)), st.just(((taps - 1) * dilation, 0)),
                                   st.tuples(*[st.integers(0, 9)] * 2)))
    width = size_for(draw(st.integers(1, 150)), taps, stride, dilation, before + after)
    width += draw(st.integers(0, stride - 1))
    return Conv(draw(st.integers(1, 2)), in_channels, 1, width, out_channels, (1, taps), (1, stride),
                (0, before, 0, after), (1, dilation), groups)


@st.composite
def volumes(draw, in_channels, out_channels, groups=1):
    """3-d convolutions: kernels, strides and dilations up to 3, uneven padding."""
    sides = []
    for largest in (4, 7, 20):
        taps, stride, dilation = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2))
        before, after = draw(st.one_of(st.just((taps // 2,) * 2), st.tuples(*[st.integers(0, 3)] * 2)))
        size = size_for(draw(st.integers(1, largest)), taps, stride, dilation, before + after)
        sides.append((size, taps, stride, before, after, dilation))
    depth, height, width = sides
    return Conv3d(draw(st.integers(1, 2)), in_channels, height[0], width[0], out_channels, (height[1], width[1]),
                  (height[2], width[2]), (height[3], width[3], height[4], width[4]), (height[5], width[5]), groups,
                  depth[0], depth[1], depth[2], (depth[3], depth[4]), depth[5])


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
