"""How good samples are after K jumps: methods, data sets and measures; see ``__main__``."""
