"""Measuring speed and memory, against other frameworks and against the machine's own limits.

On a shared machine a time says little. So contestants take turns within one run, and what is
reported are medians, their ratios, and how far the rounds were apart.
"""
