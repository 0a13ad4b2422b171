"""hedflow: finds the drugs that drug-response models get wrong, and the training that gets them less wrong.

AUC in every module is the area under the dose-response curve scaled to 0..1; LOW AUC = POTENT drug.
"""

__version__ = "0.1.0"

# A tissue or disease that no table names.
UNKNOWN = "unknown"


class HedflowError(Exception):
    """A problem the user can mend: one sentence with what was read, what was expected, what to do."""
