"""Which activation functions have kernels; to be read without loading the compiler."""

# Names of ``minirelu.model.activation_functions`` that the kernels compute.
COMPILED = ("relu",)
# Those whose units, where they are off, are exactly 0: the kernels may leave them out.
SPARSE = ("relu",)
