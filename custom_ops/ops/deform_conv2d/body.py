"""deform_conv2d in standard ONNX ops.

onnxscript compiles the source of the inner function; there the arguments of `body` are constants
(``if compute:`` is decided while compiling). It looks annotations up among the names that the
code refers to: ``from __future__ import annotations`` would take them out.
"""

from collections.abc import Sequence
from typing import Any

from custom_ops.ops._body import DOMAIN, VERSION, one_output

# Samples taken in one step of the loop over output pixels, for all channels and taps: 2 MiB in
# float32, which stays in the cache between the sampling and the matrix product.
_SAMPLES = 1 << 19
# Fewest output pixels in one step: below, the matrix product is too narrow to be fast.
_MIN_PIXELS = 128


def body(op: Any, compute: int | None) -> Any:
    """Builds the body of ``custom_ops::DeformConv2d``: deformable convolution, v2 (modulated).

    The body samples all taps of some output pixels at a time with ``GridSample`` and multiplies
    them by the weight, so that its memory depends neither on the size of the image nor on that
    of the kernel. No size is static: groups and offset groups come from the shapes, whatever the
    attributes ``group`` and ``offset_group`` say. A sample at a NaN, infinite or far-away
    position counts 0.

    Args:
        op: The onnxscript opset that the body is written in, 16 or newer; float64 needs 20
            (``GridSample`` has no float64 kernel in ONNX Runtime before).
        compute: The ``onnx.TensorProto`` dtype to compute in; the result is cast back to the
            dtype of ``X``. None computes in the dtype of the inputs.

    Returns:
        The function: inputs and attributes of the standard ``DeformConv``, all inputs written.
        ``X`` [N, C, H, W], ``W`` [O, C/group, kh, kw], ``offset``
        [N, offset_group*kh*kw*2, Ho, Wo] of (dy, dx) pairs, ``B`` [O] or [1], ``mask``
        [N, offset_group*kh*kw, Ho, Wo] or [1, 1, 1, 1]; ``pads`` is top, left, bottom, right.
    """
    from onnxscript import BOOL, INT64, graph, script
    from onnxscript.values import Opset

    @script(Opset(DOMAIN, VERSION), default_opset=op)
    @one_output
    def DeformConv2d(  # type: ignore[no-untyped-def]
        X,
        W,
        offset,
        B,
        mask,
        strides: Sequence[int] = (1, 1),
        pads: Sequence[int] = (0, 0, 0, 0),
        dilations: Sequence[int] = (1, 1),
        group: int = 1,
        offset_group: int = 1,
    ):
        if compute:
            image = op.Cast(X, to=compute)
            weight = op.Cast(W, to=compute)
            shift = op.Cast(offset, to=compute)
            bias = op.Cast(B, to=compute)
            gate = op.Cast(mask, to=compute)
        else:
            image = X
            weight = W
            shift = offset
            bias = B
            gate = mask

        # Sizes, each a tensor of shape [1] but for the pairs size, kernel and out_size.
        batch = op.Shape(X, start=0, end=1)
        channels = op.Shape(X, start=1, end=2)
        size = op.Shape(X, start=2)
        features = op.Shape(W, start=0, end=1)
        group_channels = op.Shape(W, start=1, end=2)
        kernel = op.Shape(W, start=2)
        out_size = op.Shape(offset, start=2)
        taps = op.ReduceProd(kernel, keepdims=1)
        pixels = op.ReduceProd(out_size, keepdims=1)
        groups = channels / group_channels
        fan_in = group_channels * taps
        # An offset group of an image is an image of its own to GridSample.
        planes = batch * (op.Shape(offset, start=1, end=2) / (2 * taps))
        plane_channels = batch * channels / op.Max(planes, 1)

        # Reshape takes a 0 as "copy this size" unless allowzero is set, and N may be 0.
        image = op.Reshape(image, op.Concat(planes, plane_channels, size, axis=0), allowzero=1)
        shift = op.Reshape(shift, op.Concat(planes, taps, [2], pixels, axis=0), allowzero=1)
        weight = op.Reshape(
            weight, op.Concat(groups, features / groups, fan_in, axis=0), allowzero=1
        )
        bias = op.Unsqueeze(bias, 1)
        uniform = op.Equal(op.Size(gate), 1)
        gate_shape = op.Concat(planes, [1], taps, pixels, axis=0)
        gate = op.Reshape(gate, op.Where(uniform, [1, 1, 1, 1], gate_shape), allowzero=1)

        # Positions are (x, y), as GridSample wants them, while sizes and attributes are (y, x).
        flip = op.Constant(value_ints=[1, 0])
        stride_xy = op.Unsqueeze(op.Gather(op.Constant(value_ints=strides), flip), 1)
        pad_xy = op.Unsqueeze(op.Gather(op.Constant(value_ints=pads), flip), 1)
        dilation_xy = op.Unsqueeze(op.Gather(op.Constant(value_ints=dilations), flip), 1)
        size_xy = op.CastLike(op.Unsqueeze(op.Gather(size, flip), 1), shift)
        kernel_w = op.Gather(kernel, [1])
        out_w = op.Gather(out_size, [1])

        # GridSample recovers position p from ((grid + 1) * size - 1) / 2. The grid is therefore
        # made as (2 * p + 1) / size - 1: its roundings are undone one by one. The algebraically
        # equal (2 * p + 1 - size) / size is off by up to twice as much. 2 * p + 1 is the exact
        # integer of the undeformed position plus twice the offset, rounded once.
        tap = op.Unsqueeze(op.Range(0, op.Squeeze(taps), 1), [1, 2])
        tap_y = tap / kernel_w
        tap_xy = op.Concat(tap - tap_y * kernel_w, tap_y, axis=1)
        tap_origin = op.CastLike(2 * (tap_xy * dilation_xy - pad_xy) + 1, shift)
        # |grid| <= edge holds where p is in [-2, size + 1]; a NaN fails it.
        edge = (size_xy + 3) / size_xy

        step = op.Max(_SAMPLES / op.Max(batch * channels * taps, 1), _MIN_PIXELS)
        step = op.Max(op.Min(step, pixels), 1)
        steps = (pixels + step - 1) / step
        # An empty result takes no steps: MatMul fails on an empty batch up to ONNX Runtime 1.27.
        trips = op.Min(batch * features, 1) * steps

        @graph()
        def convolve(i: INT64, go: BOOL):  # type: ignore[no-untyped-def]
            start = op.Mul(i, step)
            end = op.Min(start + step, pixels)
            count = end - start
            pixel = op.Range(op.Squeeze(start), op.Squeeze(end), 1)
            pixel_y = pixel / out_w
            pixel_x = pixel - pixel_y * out_w
            pixel_xy = op.Concat(op.Unsqueeze(pixel_x, 0), op.Unsqueeze(pixel_y, 0), axis=0)
            origin = tap_origin + op.CastLike(2 * stride_xy * pixel_xy, tap_origin)

            # The offsets of these pixels; the step of -1 turns (dy, dx) into (dx, dy).
            begins = op.Concat([1], start, axis=0)
            ends = op.Concat([-3], end, axis=0)
            delta = op.Slice(shift, begins, ends, [2, 3], [-1, 1])
            grid = (2 * delta + origin) / size_xy - 1
            grid = op.Where(op.LessOrEqual(op.Abs(grid), edge), grid, -edge)
            # The mode is left at its default: it is "bilinear" to opset 16, "linear" to 20.
            # With align_corners=1 every position would be pixel 0 where the size is 1.
            columns = op.GridSample(
                image,
                op.Transpose(grid, perm=[0, 1, 3, 2]),
                align_corners=0,
                padding_mode="zeros",
            )
            # No -1 in these shapes: one that may also hold a 0 is refused at load from 1.27.
            matrix = op.Concat(batch, groups, fan_in, count, axis=0)
            # A branch may define nothing but the result: onnxscript wants the same names in both.
            if uniform:
                part = op.MatMul(weight, op.Reshape(columns, matrix, allowzero=1)) * gate
            else:
                part = op.MatMul(
                    weight,
                    op.Reshape(columns * op.Slice(gate, start, end, [3]), matrix, allowzero=1),
                )
            part = op.Reshape(part, op.Concat(batch, features, count, axis=0), allowzero=1)
            part = part + bias
            # Loop stacks its outputs, so the last one has to be as wide as the others.
            missing = op.Concat([0, 0, 0, 0, 0], step - count, axis=0)
            return go, op.Pad(part, missing)

        parts = op.Loop(op.Squeeze(trips), True, body=convolve)
        parts = op.Reshape(parts, op.Concat(steps, batch, features, step, axis=0), allowzero=1)
        rows = op.Transpose(parts, perm=[1, 2, 0, 3])
        rows = op.Reshape(rows, op.Concat(batch, features, steps * step, axis=0), allowzero=1)
        rows = op.Slice(rows, [0], pixels, [2])
        y = op.Reshape(rows, op.Concat(batch, features, out_size, axis=0), allowzero=1)
        if compute:
            y = op.CastLike(y, X)
        return y

    return DeformConv2d
