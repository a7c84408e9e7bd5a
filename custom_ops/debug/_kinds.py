"""Which op of ONNX can give what which op of torch gives."""

import re
from collections.abc import Iterable

# What the ops of torch go by here: several names for one meaning become the first.
_SAME = {
    same: first
    for first, *others in (
        ("sub", "rsub", "subtract"),
        ("addmm", "addmv", "addbmm", "baddbmm", "mkldnn_linear"),
        ("matmul", "mm", "bmm", "mv", "dot", "linalg_matmul", "einsum", "tensordot"),
        ("conv", "convolution", "convolution_overrideable", "mkldnn_convolution", "conv1d",
         "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
         "slow_conv2d_forward", "conv_depthwise2d", "conv_depthwise3d", "slow_conv_transpose2d"),
        ("batch_norm", "batch_norm_legit_no_training", "batch_norm_legit", "cudnn_batch_norm",
         "batch_norm_legit_no_stats", "batch_norm_with_update"),
        ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as",
         "reshape_as", "reshape_alias", "ravel", "atleast_1d", "atleast_2d", "as_strided", "item"),
        ("permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "numpy_t",
         "matrix_h", "mh", "mt", "adjoint", "channel_shuffle", "pixel_shuffle",
         "pixel_unshuffle"),
        ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"),
        ("select", "slice", "narrow", "split", "split_with_sizes", "chunk", "unbind",
         "unsafe_split", "unsafe_chunk", "tensor_split", "index_select", "gather", "index",
         "embedding", "take", "take_along_dim", "roll", "flip", "diagonal", "unsafe_index",
         "rot90", "getitem"),
        ("clamp", "clip", "clamp_min", "clamp_max", "hardtanh", "relu6", "relu", "threshold"),
        ("max_pool", "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices",
         "max_pool3d_with_indices", "max_pool1d_with_indices", "mkldnn_max_pool2d",
         "adaptive_max_pool2d", "adaptive_max_pool1d", "adaptive_max_pool3d"),
        ("mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "nanmean",
         "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
        ("sum", "nansum"),
        ("upsample", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
         "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d",
         "upsample_nearest_exact1d", "upsample_nearest_exact2d", "upsample_bilinear2d_aa",
         "upsample_nearest_exact3d", "interpolate", "upsample_bicubic2d_aa"),
        ("attention", "scaled_dot_product_attention", "scaled_dot_product_flash_attention_for_cpu",
         "scaled_dot_product_attention_math", "scaled_dot_product_fused_attention_overrideable",
         "scaled_dot_product_flash_attention", "scaled_dot_product_efficient_attention"),
        ("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
         "replication_pad1d", "replication_pad2d", "replication_pad3d", "zero_pad2d"),
        ("to", "to_copy", "type_as", "float", "half", "double", "cast", "contiguous", "clone",
         "detach", "alias", "lift_fresh_copy", "dropout", "identity", "copy"),
        ("expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave"),
        ("ones", "zeros", "full", "full_like", "ones_like", "zeros_like", "new_zeros", "new_ones",
         "new_full", "empty", "fill", "zero", "scalar_tensor", "arange"),
        ("lstm", "mkldnn_rnn_layer", "thnn_fused_lstm_cell", "lstm_cell"),
        ("div", "true_divide", "divide", "floor_divide"),
        ("mul", "multiply"),
        ("neg", "negative"),
        ("masked_fill", "where", "masked_scatter"),
        ("index_put", "scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy",
         "slice_scatter", "select_scatter"),
        ("amax", "max", "maximum"),
        ("amin", "min", "minimum"),
        ("log_softmax",), ("norm", "linalg_vector_norm", "frobenius_norm"),
    )
    for same in (first, *others)
}  # fmt: skip

# What an op of ONNX may give the result of: itself, or the torch op that it is the last node of.
_MAY_BE: dict[str, frozenset[str]] = {
    op: frozenset(names.split())
    for op, names in {
        "Add": "add addmm matmul conv layer_norm group_norm instance_norm batch_norm addcmul lerp "
        "addcdiv linspace arange softplus logsumexp log1p expm1 attention sub mse_loss",
        "Sub": "add sub rsub expm1 log_softmax tanhshrink remainder fmod frac",
        "Mul": "mul gelu silu hardswish mish group_norm layer_norm batch_norm instance_norm div "
        "rms_norm fused_rms_norm square rsqrt normalize elu celu selu glu prelu swish log10 log2 "
        "addmm mean var std softplus hardsigmoid softsign logaddexp",
        "Div": "div mul softmax layer_norm hardswish hardsigmoid mean normalize cosine_similarity "
        "softsign reciprocal log10 log2 softplus gelu rsqrt sigmoid std var norm attention",
        "Conv": "conv batch_norm",
        "ConvTranspose": "conv batch_norm",
        "Gemm": "addmm matmul batch_norm linear",
        "MatMul": "matmul attention linear",
        "Einsum": "matmul",
        "BatchNormalization": "batch_norm instance_norm group_norm",
        "LayerNormalization": "layer_norm",
        "InstanceNormalization": "instance_norm batch_norm group_norm",
        "GroupNormalization": "group_norm",
        "RMSNormalization": "rms_norm fused_rms_norm",
        "Attention": "attention",
        "Relu": "clamp",
        "Clip": "clamp hardsigmoid hardswish",
        "Max": "amax clamp",
        "Min": "amin clamp",
        "ReduceMax": "amax max_pool",
        "ReduceMin": "amin",
        "TopK": "topk sort argsort kthvalue median amax amin",
        "ArgMax": "argmax amax",
        "ArgMin": "argmin amin",
        "ReduceMean": "mean",
        "GlobalAveragePool": "mean",
        "AveragePool": "mean",
        "MaxPool": "max_pool",
        "GlobalMaxPool": "max_pool amax",
        "ReduceSum": "sum",
        "ReduceProd": "prod",
        "ReduceL1": "norm", "ReduceL2": "norm",
        "ReduceLogSumExp": "logsumexp",
        "Reshape": "view permute expand group_norm matmul addmm mean select attention lstm gru "
        "instance_norm sum amax batch_norm roll cat",
        "Flatten": "view", "Squeeze": "view select lstm gru rnn_tanh mean sum amax amin argmax",
        "Unsqueeze": "view",
        "Transpose": "permute lstm gru rnn_tanh rnn_relu",
        "Concat": "cat select expand pad lstm gru",
        "Slice": "select pad", "Gather": "select view", "GatherElements": "select",
        "GatherND": "select", "Split": "select", "SplitToSequence": "select",
        "SequenceAt": "select", "ReverseSequence": "select",
        "Softmax": "softmax", "LogSoftmax": "log_softmax",
        "Log": "log log_softmax log1p softplus logsumexp logit",
        "Exp": "exp", "Sqrt": "sqrt std norm", "Reciprocal": "reciprocal rsqrt div",
        "Pow": "pow square mul rsqrt", "Neg": "neg softmin",
        "Where": "masked_fill gelu elu leaky_relu softplus clamp nan_to_num index_put threshold "
        "pow remainder hardshrink softshrink",
        "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid", "LeakyRelu": "leaky_relu",
        "PRelu": "prelu", "ThresholdedRelu": "clamp", "Swish": "silu",
        "Resize": "upsample", "Upsample": "upsample", "GridSample": "grid_sampler "
        "grid_sampler_2d grid_sampler_3d", "Pad": "pad", "Expand": "expand", "Tile": "expand",
        "Cast": "to argmax any all", "CastLike": "to", "Identity": "to view expand",
        "DepthToSpace": "permute", "SpaceToDepth": "permute", "CumSum": "cumsum",
        "ScatterND": "index_put select", "ScatterElements": "index_put",
        "Equal": "eq ne", "Not": "logical_not ne bitwise_not isfinite", "Less": "lt",
        "Greater": "gt", "LessOrEqual": "le", "GreaterOrEqual": "ge", "And": "logical_and "
        "bitwise_and", "Or": "logical_or bitwise_or", "Xor": "logical_xor bitwise_xor",
        "NonZero": "nonzero", "ConstantOfShape": "ones", "Range": "ones arange", "Mod": "remainder "
        "fmod", "LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh rnn_relu", "LRN": "mean div",
        "IsNaN": "isnan", "IsInf": "isinf", "Trilu": "tril triu", "OneHot": "one_hot",
        "NonMaxSuppression": "nms", "RoiAlign": "roi_align", "MaxRoiPool": "roi_pool",
        "DeformConv": "deform_conv2d", "Mean": "mean", "Loop": "while_loop scan",
        "Scan": "scan",
    }.items()
}  # fmt: skip

# What ONNX Runtime merges nodes into: the result is that of the last.
_ACTIVATIONS = "clamp sigmoid tanh leaky_relu hardsigmoid hardswish silu gelu add"
_FUSED: dict[str, frozenset[str]] = {
    op: frozenset(names.split())
    for op, names in {
        "FusedConv": f"conv batch_norm {_ACTIVATIONS}",
        "FusedGemm": f"addmm matmul linear batch_norm {_ACTIVATIONS}",
        "FusedMatMul": "matmul attention linear mul div",
        "Gelu": "gelu", "BiasGelu": "gelu", "FastGelu": "gelu", "QuickGelu": "silu mul",
        "BiasSoftmax": "softmax", "BiasDropout": "add to", "LayerNormalization": "layer_norm",
        "SkipLayerNormalization": "layer_norm add", "SimplifiedLayerNormalization": "rms_norm",
        "Attention": "attention addmm view", "MultiHeadAttention": "attention permute view",
        "GroupNorm": "group_norm", "SkipSimplifiedLayerNormalization": "rms_norm add",
        "MatMulNBits": "matmul linear addmm", "NhwcMaxPool": "max_pool",
    }.items()
}  # fmt: skip

VIEWS = frozenset({"view", "permute", "to", "expand"})
LOOPS = frozenset({"Loop", "Scan"})


def torch_kind(name: str) -> str:
    """Returns what an op of torch goes by: "aten._native_layer_norm_" is "layer_norm".

    Example:
        >>> torch_kind("aten.relu_"), torch_kind("aten.convolution"), torch_kind("aten.mm")
        ('clamp', 'conv', 'matmul')
    """
    base = name.split("::")[-1].split(".")[-1].strip("_").lower()
    for prefix in ("native_", "unsafe_", "fused_", "mkldnn_"):
        if base.removeprefix(prefix) in _KNOWN or prefix == "native_":
            base = base.removeprefix(prefix)
    return _SAME.get(base, base)


def fits(op_type: str, domain: str, target: str, kinds: Iterable[str]) -> bool:
    """Returns whether a node of ONNX can give the result of an op of torch.

    Args:
        op_type: Of the node.
        domain: Of the node; "" is that of ONNX.
        target: The op of torch that the exporter notes as the one whose result it is, as
            "aten.conv2d"; "" where it notes none.
        kinds: What the op of torch goes by, and the ops inside it.
    """
    kinds = frozenset(kinds)
    if target and _related(torch_kind(target), kinds):
        return True
    if domain in ("", "com.microsoft"):
        may_be = _MAY_BE.get(op_type) if domain == "" else _FUSED.get(op_type)
        if may_be is not None:
            return bool(may_be & kinds)
    return _related(torch_kind(snake(op_type)), kinds)


def _related(kind: str, kinds: frozenset[str]) -> bool:
    return kind in kinds or bool(_MAY_BE_TARGET.get(kind, frozenset()) & kinds)


# What torch.export keeps whole and torch runs as another op.
_MAY_BE_TARGET = {
    "linear": frozenset({"addmm", "matmul"}),
    "bilinear": frozenset({"addmm", "matmul"}),
    "matmul": frozenset({"addmm", "sum", "mul"}),
    "gru": frozenset({"cat", "permute", "view"}),
    "lstm": frozenset({"cat", "permute", "view"}),
    "rms_norm": frozenset({"mul", "to"}),
    "instance_norm": frozenset({"batch_norm", "view"}),
    "group_norm": frozenset({"layer_norm"}),
    "one_hot": frozenset({"index_put"}),
    "silu": frozenset({"mul"}),
    "square": frozenset({"pow"}),
    "grid_sampler": frozenset({"grid_sampler_2d", "grid_sampler_3d"}),
    "cosine_similarity": frozenset({"div", "sum"}),
    "normalize": frozenset({"div"}),
    "std": frozenset({"var", "sqrt"}),
    "layer_norm": frozenset({"layer_norm", "add", "mul"}),
    "batch_norm": frozenset({"conv"}),
}

_KNOWN = frozenset(_SAME) | frozenset(_MAY_BE_TARGET)


def snake(name: str) -> str:
    """Returns "MulAdd" as "mul_add", and "DeformConv2d" as "deform_conv2d"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
