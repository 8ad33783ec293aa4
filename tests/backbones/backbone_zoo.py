"""Tiny random encoders of every architecture that `SPECS` describes, and of its variants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
BERT_LIKE = {**SIZES, **DROPOUT}
ROBERTA_LIKE = {**BERT_LIKE, "type_vocab_size": 1, "pad_token_id": 1}
RELATIVE = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
    "type_vocab_size": 0,
}
V3 = {"position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True}

ZOO: dict[str, Callable[[], PreTrainedConfig]] = {
    "albert": lambda: hf.AlbertConfig(**BERT_LIKE, embedding_size=16, pad_token_id=0),
    "albert-groups": lambda: hf.AlbertConfig(
        **{**BERT_LIKE, "num_hidden_layers": 4}, embedding_size=16, num_hidden_groups=2, inner_group_num=2
    ),
    "bert": lambda: hf.BertConfig(**BERT_LIKE),
    "camembert": lambda: hf.CamembertConfig(**ROBERTA_LIKE),
    "convbert": lambda: hf.ConvBertConfig(**BERT_LIKE, embedding_size=16, conv_kernel_size=3),
    "data2vec-text": lambda: hf.Data2VecTextConfig(**ROBERTA_LIKE),
    "deberta": lambda: hf.DebertaConfig(**{**BERT_LIKE, **RELATIVE}),
    "deberta-absolute": lambda: hf.DebertaConfig(**BERT_LIKE, position_biased_input=True),
    "deberta-v2": lambda: hf.DebertaV2Config(**{**BERT_LIKE, **RELATIVE, **V3}, conv_kernel_size=3),
    "deberta-v3": lambda: hf.DebertaV2Config(**{**BERT_LIKE, **RELATIVE, **V3}),
    "deberta-v2-absolute": lambda: hf.DebertaV2Config(**BERT_LIKE, position_biased_input=True),
    "distilbert": lambda: hf.DistilBertConfig(
        vocab_size=60, dim=32, n_layers=3, n_heads=4, hidden_dim=37, max_position_embeddings=40, dropout=0.2
    ),
    "electra": lambda: hf.ElectraConfig(**BERT_LIKE, embedding_size=16),
    "electra-unprojected": lambda: hf.ElectraConfig(**BERT_LIKE, embedding_size=32),
    "ernie": lambda: hf.ErnieConfig(**BERT_LIKE, use_task_id=True),
    "jina_embeddings_v3": lambda: hf.JinaEmbeddingsV3Config(**ROBERTA_LIKE),
    "megatron-bert": lambda: hf.MegatronBertConfig(**BERT_LIKE),
    "modernbert": lambda: hf.ModernBertConfig(
        **{**SIZES, "num_hidden_layers": 4},
        local_attention=4,  # narrower than the inputs, so that the window matters
        global_attn_every_n_layers=3,
        embedding_dropout=0.2,
        attention_dropout=0.2,
        mlp_dropout=0.2,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 3),
    ),
    "mpnet": lambda: hf.MPNetConfig(**BERT_LIKE),
    "nomic_bert": lambda: hf.NomicBertConfig(**BERT_LIKE),
    "rembert": lambda: hf.RemBertConfig(**BERT_LIKE, input_embedding_size=16),
    "roberta": lambda: hf.RobertaConfig(**ROBERTA_LIKE),
    "roberta-prelayernorm": lambda: hf.RobertaPreLayerNormConfig(**ROBERTA_LIKE),
    "roformer": lambda: hf.RoFormerConfig(**BERT_LIKE, embedding_size=16),
    "xlm-roberta": lambda: hf.XLMRobertaConfig(**ROBERTA_LIKE),
    "xlm-roberta-xl": lambda: hf.XLMRobertaXLConfig(**ROBERTA_LIKE),
}


def make(name: str, attention: str = "eager", seed: int = 0) -> PreTrainedModel:
    """A model of the zoo in evaluation mode; every weight is moved, so that none is idle at 0 or 1."""
    return build(ZOO[name](), attention, seed)


def build(config: PreTrainedConfig, attention: str = "eager", seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModel.from_config(config, attn_implementation=attention)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def with_attentions() -> list[tuple[str, str]]:
    """Every model of the zoo with every attention that it has."""
    classes = {name: AutoModel._model_mapping[type(config())] for name, config in ZOO.items()}
    return [
        (n, a) for n, c in classes.items() for a in (("eager", "sdpa") if c._supports_sdpa else ("eager",))
    ]


def save(model: PreTrainedModel, folder: Path, words: int = 50) -> Path:
    """The model and a word-level tokenizer, as a folder."""
    vocabulary = {word: i for i, word in enumerate(("[PAD]", "[UNK]", *(f"w{k}" for k in range(words - 2))))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    model.save_pretrained(folder)
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder
