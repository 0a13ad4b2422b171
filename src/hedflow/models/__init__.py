"""Networks. A network maps (cell matrix, drug matrix, cell index, drug index) to predicted AUC, 0..1."""
