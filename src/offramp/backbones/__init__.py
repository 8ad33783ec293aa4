"""Encoders of the `transformers` library, unmodified, driven layer by layer."""

from offramp.backbones.backbone import Backbone, BackboneState, check_parity
from offramp.backbones.loading import has_tokenizer, load_backbone, load_tokenizer, truncated_config
from offramp.backbones.packaged import PACKAGED
from offramp.backbones.specs import SPECS, BackboneSpec, Context, spec_of
from offramp.backbones.tokenizer_files import read_tokenizer

__all__ = [
    "PACKAGED",
    "SPECS",
    "Backbone",
    "BackboneSpec",
    "BackboneState",
    "Context",
    "check_parity",
    "has_tokenizer",
    "load_backbone",
    "load_tokenizer",
    "read_tokenizer",
    "spec_of",
    "truncated_config",
]
