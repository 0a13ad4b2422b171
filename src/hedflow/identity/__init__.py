"""Who is who: native cell names to DepMap ModelIDs, native drug names to parent structures. No response enters."""
