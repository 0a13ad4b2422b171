"""Dose-response curves: the Hill function and what is read off it (`hill`), fitting many at once (`fit`), growth rates
(`growth`), and curves of the screens' own dose points (`screens`).

Everywhere here a concentration is `x = -log10 M` (so 6 is 1 uM, and a *higher* x is a lower dose), viability is a
fraction of the untreated control (1 = no effect), and `auc` is the mean viability over a range of x: 0..1,
low = potent.
"""
