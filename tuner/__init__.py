"""A specialization-aware autotuner for Triton kernels in LLM serving."""
