"""Figures: tables in, PNG files out. Every figure names n, its intervals and the naive baselines."""

# Name of the file -> its title in the report; each has a caption in workflow/report/<name>.rst.
FIGURES = {
    "tradeoff": "1. Error on potent pairs against the rest",
    "contrasts": "2. Change of error against the reference loss",
    "ranges2": "3. Error in 2 AUC ranges",
    "ranges10": "4. Error in 10 AUC ranges",
    "ranking": "5. Ranking the drugs of a cell line",
    "high_error_drugs": "6. High error drugs: true and predicted AUC",
    "drug_errors": "7. Error of every drug",
    "distance": "8. Error against the nearest training drug",
    "z_scores": "9. The four z-scores",
    "predicted": "10. Predicted against true AUC",
    "training": "11. Training",
}
