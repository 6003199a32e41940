"""Models in other people's formats: folders of HuggingFace's OPT, written and read back."""

from minirelu.interop.opt import write_opt
from minirelu.interop.opt_read import read_opt

__all__ = ["read_opt", "write_opt"]
