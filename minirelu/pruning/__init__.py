"""Which units can be removed: rankings, curves of loss, smaller models, widths for the next run."""
