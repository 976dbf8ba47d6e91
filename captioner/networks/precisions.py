"""The number formats that a CNN computes in, and with int8 the decoder. Loads no torch."""

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
