"""Layer 0: a linear classifier on the tokens of a text, which answers before the encoder's first layer.

It reads token ids, so it needs no framework, no second tokenizer and no rules for a language. Fitting uses
scikit-learn; answering needs numpy alone.
"""

from offramp.layer_zero.fit import fit_linear_stage
from offramp.layer_zero.stage import PAIR_FEATURES, LinearStage, no_evidence

__all__ = ["PAIR_FEATURES", "LinearStage", "fit_linear_stage", "no_evidence"]
