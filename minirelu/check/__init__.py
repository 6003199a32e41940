"""Whether what is computed is right: gradients by central differences, kernels by the reference."""
