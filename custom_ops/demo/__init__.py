"""A network with our ops, from training to every way of running it in ONNX Runtime.

A camera looks at a picture through moving water and measures the water's height. Each pixel
therefore shows another place of the picture, and only the slope of the water says which. The
network learns the offsets at which to sample, so that the picture comes out straight.
"""

from custom_ops.demo.runner import Result, run

__all__ = ["Result", "run"]
