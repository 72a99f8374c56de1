"""The public verbs as functions, one per file; `edgevit.VERB` and `edgevit VERB` both call them."""
