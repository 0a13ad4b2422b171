"""Whether aligning the sources' AUC scales brings them together on drugs that the alignment has not seen.

    python benchmarks/bench_alignment.py [--response results/integration/response.parquet] [--reference GDSCv2]

The maps are fitted on the shared pairs of one half of the drugs and judged on the other half: mean absolute difference
between a source and the reference before and after. Both are of the same pairs, in one run. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd

from hedflow.alignment import fit_alignment


def main() -> None:
    """Print a line a source, and the ratio of the differences after to before over all pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--response", default="results/integration/response.parquet", help="of the rule integrate")
    parser.add_argument("--reference", default="GDSCv2")
    given = parser.parse_args()
    table = pd.read_parquet(given.response, columns=["cell_id", "drug_id", "source", "auc"])
    table.columns = pd.Index(["cell", "drug", "source", "auc"])
    drugs = np.random.default_rng(0).permutation(np.sort(table["drug"].unique()))
    seen = table["drug"].isin(drugs[: len(drugs) // 2])
    alignment = fit_alignment(table[seen], given.reference)
    rest = table[~seen]
    aligned = alignment.to_reference(rest["auc"].to_numpy(), rest["source"].to_numpy())
    wide = rest.assign(aligned=aligned).pivot(index=["cell", "drug"], columns="source", values=["auc", "aligned"])
    total, before_all, after_all = 0, 0.0, 0.0
    for source in sorted(alignment.knots):
        pairs = wide[[("auc", source), ("aligned", source), ("auc", given.reference)]].dropna().to_numpy()
        before, after = (np.abs(pairs[:, i] - pairs[:, 2]) for i in (0, 1))
        print(f"{source}: {len(pairs):,} pairs of unseen drugs, {before.mean():.4f} -> {after.mean():.4f}")
        total, before_all, after_all = total + len(pairs), before_all + before.sum(), after_all + after.sum()
    report = {"benchmark": "alignment", "reference": given.reference, "pairs": total}
    print(json.dumps(report | {"before": round(before_all / total, 4), "after": round(after_all / total, 4)}))


if __name__ == "__main__":
    main()
