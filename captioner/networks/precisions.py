"""The number formats that a CNN computes in. Loads no torch."""

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
