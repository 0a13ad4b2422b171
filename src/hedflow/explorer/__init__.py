"""The interactive explorer of drugs and cell lines: one self-contained page made from an experiment's tables.

`data` says what is in it, `charts` draws (altair), `page` packs both with the files of `assets`; explorer.js is what a
click does.
"""
