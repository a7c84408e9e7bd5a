"""Fourier transforms, which the TorchScript exporter lacks; dynamo's lose digits in float32."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from custom_ops.onnx._mappings.pack.complex_numbers import as_pairs, conjugate, of_complex, part

_LAST = 2**63 - 1
_Function = Callable[..., Any]


def _rank(x: Any) -> int:
    return int(x.rank) - (1 if x.is_complex else 0)


def _size(op: Any, x: Any, axis: int) -> Any:
    return op.Shape(x, start=axis, end=axis + 1)


def _fitted(op: Any, pairs: Any, n: Any, axis: int) -> Any:
    """Cuts or fills up with zeros to n along a dimension; n is a tensor of one element."""
    missing = op.Max(op.Sub(n, _size(op, pairs, axis)), [0])
    rank = pairs.rank
    pads = op.Concat([0] * (rank + axis), missing, [0] * (rank - axis - 1), axis=0)
    return op.Slice(op.Pad(pairs, pads), [0], n, [axis])


def _dft(op: Any, pairs: Any, axis: int, inverse: bool) -> Any:
    # In float64: in float32 the runtime loses digits where a size is no power of two. The inverse
    # by the transform itself: runtimes divide by a float32 there.
    wide = op.Cast(pairs, to=ir.DataType.DOUBLE)
    wide = conjugate(op, wide) if inverse else wide
    found = op.DFT(wide, None, axis) if op.opset_version >= 20 else op.DFT(wide, axis=axis)
    if inverse:
        size = op.Cast(op.Squeeze(_size(op, pairs, axis)), to=ir.DataType.DOUBLE)
        found = op.Div(conjugate(op, found), size)
    return op.CastLike(found, pairs)


def _scaled(op: Any, pairs: Any, n: Any, norm: str | None, inverse: bool) -> Any:
    """Scales a transform as torch's norm says; the inverse is divided by n already."""
    kind = norm or "backward"
    size = op.CastLike(op.Squeeze(n), pairs)
    if kind == "ortho":
        root = op.Sqrt(size)
        return op.Mul(pairs, root) if inverse else op.Div(pairs, root)
    if kind == "forward":
        return op.Mul(pairs, size) if inverse else op.Div(pairs, size)
    return pairs


def _length(op: Any, pairs: Any, n: Any, axis: int) -> Any:
    if n is None or (isinstance(n, int) and n == -1):
        return _size(op, pairs, axis)
    return op.Constant(value=_array(n)) if isinstance(n, int) else op.Reshape(n, [1])


def _array(n: int) -> Any:
    return np.asarray([n], np.int64)


def _along(op: Any, pairs: Any, n: Any, axis: int, norm: str | None, inverse: bool) -> Any:
    n = _length(op, pairs, n, axis)
    found = _dft(op, _fitted(op, pairs, n, axis), axis, inverse)
    return _scaled(op, found, n, norm, inverse)


def _half(op: Any, pairs: Any, axis: int, n: Any) -> Any:
    """Keeps the half that says all of the transform of real numbers."""
    return op.Slice(pairs, [0], op.Add(op.Div(n, 2), 1), [axis])


def _to_real(op: Any, pairs: Any, n: Any, axis: int, norm: str | None, inverse: bool) -> Any:
    """Returns the real transform of a half, the rest of which is its conjugate."""
    if n is None or n == -1:
        n = op.Mul(op.Sub(_size(op, pairs, axis), 1), 2)
    else:
        n = _length(op, pairs, n, axis)
    half = _fitted(op, pairs, op.Add(op.Div(n, 2), 1), axis)
    middle = op.Slice(half, [1], op.Div(op.Add(n, 1), 2), [axis])
    mirrored = op.Slice(conjugate(op, middle), [-1], [-_LAST], [axis], [-1])
    whole = op.Concat(half, mirrored, axis=axis)
    return part(op, _scaled(op, _dft(op, whole, axis, inverse), n, norm, inverse), 0)


@of_complex("aten::fft_fft")
def _fft(op: Any, self: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    return _along(op, as_pairs(op, self), n, dim % _rank(self), norm, False)


@of_complex("aten::fft_ifft")
def _ifft(op: Any, self: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    return _along(op, as_pairs(op, self), n, dim % _rank(self), norm, True)


@of_complex("aten::fft_rfft")
def _rfft(op: Any, self: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    axis, pairs = dim % _rank(self), as_pairs(op, self)
    return _half(op, _along(op, pairs, n, axis, norm, False), axis, _length(op, pairs, n, axis))


@of_complex("aten::fft_irfft")
def _irfft(op: Any, self: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    return _to_real(op, as_pairs(op, self), n, dim % _rank(self), norm, True)


@of_complex("aten::fft_hfft")
def _hfft(op: Any, self: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    return _to_real(op, as_pairs(op, self), n, dim % _rank(self), norm, False)


@of_complex("aten::fft_ihfft")
def _ihfft(op: Any, self: Any, n: Any = None, dim: int = -1, norm: str | None = None) -> Any:
    axis, pairs = dim % _rank(self), as_pairs(op, self)
    found = _along(op, pairs, n, axis, norm, True)
    return _half(op, found, axis, _length(op, pairs, n, axis))


@of_complex("aten::_fft_r2c", exporter="dynamo")
def _fft_r2c(op: Any, self: Any, dim: Sequence[int], normalization: int, onesided: bool) -> Any:
    # dynamo writes all transforms by this and two of complex numbers, which only it can write.
    pairs, norm = as_pairs(op, self), (None, "ortho", "forward")[normalization]
    for axis in dim:
        pairs = _along(op, pairs, None, axis % self.rank, norm, False)
    axis = dim[-1] % self.rank
    return _half(op, pairs, axis, _size(op, self, axis)) if onesided else pairs


def _axes(x: Any, s: Any, dim: Any) -> tuple[list[Any], list[int]]:
    """Returns sizes and dimensions of a transform over several."""
    rank = _rank(x)
    if dim is None:
        axes = list(range(rank - len(s), rank)) if s is not None else list(range(rank))
    else:
        axes = [d % rank for d in ([dim] if isinstance(dim, int) else dim)]
    return (list(s) if s is not None else [None] * len(axes)), axes


def _each(
    op: Any, pairs: Any, sizes: Sequence[Any], axes: Sequence[int], norm: Any, inverse: bool
) -> Any:
    for n, axis in zip(sizes, axes, strict=True):
        pairs = _along(op, pairs, n, axis, norm, inverse)
    return pairs


@of_complex("aten::fft_fftn")
def _fftn(op: Any, self: Any, s: Any = None, dim: Any = None, norm: Any = None) -> Any:
    return _each(op, as_pairs(op, self), *_axes(self, s, dim), norm, False)


@of_complex("aten::fft_ifftn")
def _ifftn(op: Any, self: Any, s: Any = None, dim: Any = None, norm: Any = None) -> Any:
    return _each(op, as_pairs(op, self), *_axes(self, s, dim), norm, True)


@of_complex("aten::fft_rfftn")
def _rfftn(op: Any, self: Any, s: Any = None, dim: Any = None, norm: Any = None) -> Any:
    sizes, axes = _axes(self, s, dim)
    pairs = as_pairs(op, self)
    n = _length(op, pairs, sizes[-1], axes[-1])
    pairs = _half(op, _along(op, pairs, sizes[-1], axes[-1], norm, False), axes[-1], n)
    return _each(op, pairs, sizes[:-1], axes[:-1], norm, False)


@of_complex("aten::fft_irfftn")
def _irfftn(op: Any, self: Any, s: Any = None, dim: Any = None, norm: Any = None) -> Any:
    sizes, axes = _axes(self, s, dim)
    pairs = _each(op, as_pairs(op, self), sizes[:-1], axes[:-1], norm, True)
    return _to_real(op, pairs, sizes[-1], axes[-1], norm, True)


@of_complex("aten::fft_hfftn")
def _hfftn(op: Any, self: Any, s: Any = None, dim: Any = None, norm: Any = None) -> Any:
    sizes, axes = _axes(self, s, dim)
    pairs = _each(op, as_pairs(op, self), sizes[:-1], axes[:-1], norm, False)
    return _to_real(op, pairs, sizes[-1], axes[-1], norm, False)


@of_complex("aten::fft_ihfftn")
def _ihfftn(op: Any, self: Any, s: Any = None, dim: Any = None, norm: Any = None) -> Any:
    sizes, axes = _axes(self, s, dim)
    pairs = as_pairs(op, self)
    n = _length(op, pairs, sizes[-1], axes[-1])
    pairs = _half(op, _along(op, pairs, sizes[-1], axes[-1], norm, True), axes[-1], n)
    return _each(op, pairs, sizes[:-1], axes[:-1], norm, True)


def _over_two(name: str, function: _Function) -> None:
    def mapped(op: Any, self: Any, s: Any = None, dim: Any = (-2, -1), norm: Any = None) -> Any:
        return function(op, self, s, dim, norm)

    of_complex(f"aten::fft_{name}")(mapped)


for _name, _mapped in (("fft2", _fftn), ("ifft2", _ifftn), ("rfft2", _rfftn)):
    _over_two(_name, _mapped)
for _name, _mapped in (("irfft2", _irfftn), ("hfft2", _hfftn), ("ihfft2", _ihfftn)):
    _over_two(_name, _mapped)


def _rolled(op: Any, x: Any, dim: Any, up: bool) -> Any:
    rank = _rank(x)
    axes = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    for axis in (a % rank for a in axes):
        size = _size(op, x, axis)
        cut = op.Div(op.Add(size, int(up)), 2)
        ends = op.Slice(x, cut, [_LAST], [axis]), op.Slice(x, [0], cut, [axis])
        x = op.Concat(*ends, axis=axis)
    return x


@of_complex("aten::fft_fftshift")
def _fftshift(op: Any, self: Any, dim: Any = None) -> Any:
    return _rolled(op, self, dim, True)


@of_complex("aten::fft_ifftshift")
def _ifftshift(op: Any, self: Any, dim: Any = None) -> Any:
    return _rolled(op, self, dim, False)


@of_complex("aten::stft", exporter="both")  # the op STFT loses digits as DFT does in float32
def _stft(
    op: Any,
    self: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Any:
    if self.is_complex:
        raise op.refusal("self must be real, got complex numbers; transform both parts")
    hop, length = hop_length or n_fft // 4, win_length or n_fft
    flat = self.rank == 1
    x = op.Unsqueeze(self, [0]) if flat else self
    frames = op.Add(op.Div(op.Sub(_size(op, x, 1), n_fft), hop), 1)
    starts = op.Mul(op.Range(0, op.Squeeze(frames), 1), hop)
    places = op.Add(op.Unsqueeze(starts, [1]), op.Range(0, n_fft, 1))
    seen = op.Gather(x, places, axis=1)
    left = (n_fft - length) // 2
    if window is not None or length < n_fft:
        if window is None:
            window = op.CastLike(op.Constant(value_floats=[1.0] * length), x)
        seen = op.Mul(seen, op.Pad(window, [left, n_fft - length - left]))
    n = op.Constant(value=_array(n_fft))
    pairs = _along(op, as_pairs(op, seen), None, 2, "ortho" if normalized else None, False)
    if onesided is not False:
        pairs = _half(op, pairs, 2, n)
    pairs = op.Transpose(pairs, perm=[0, 2, 1, 3])
    return op.Squeeze(pairs, [0]) if flat else pairs
