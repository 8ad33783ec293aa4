"""SAME: the slowdown attack of Chen et al. 2023, "Dynamic Transformers Provide a False Sense of Efficiency".

Source: arXiv 2305.12228. White box: it takes gradients through all exits. Marked below: what the paper's
*released code* does, and what is *ours*.

Three flaws of the released code are not carried over:
1. gradients are never zeroed there, so that each step follows the sum over all earlier inputs: here every
   gradient is fresh, and an example's attack depends on no other example;
2. it returns the best text of the last round: here the best ever seen, which is never weaker than the input;
3. it never stops on success: here nothing is asked once a text leaves at the last exit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import Same
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Move, Recipe
from offramp.attacks.recipes.requirements import require_probabilities
from offramp.attacks.search.base import BeamSearch
from offramp.attacks.search.importance import EveryWord, TopGradient
from offramp.attacks.transformations.base import CharacterChange, GradientWord
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.base import Victim


def same_word(victim: Victim, options: Options) -> Recipe:
    """SAME at the word level: a word becomes the word that should lower the loss most."""
    return _same("same-word", (word_move(victim),), victim, options)


def same_char(victim: Victim, options: Options) -> Recipe:
    """SAME at the character level: one character of an important word changes."""
    return _same("same-char", (character_move(options),), victim, options)


def same_mixed(victim: Victim, options: Options) -> Recipe:
    """Both levels, half of the tries each (ours): no more queries than either of them."""
    return _same("same-mixed", (word_move(victim), character_move(options)), victim, options)


def vocabulary_of(victim: Victim) -> tuple[Vocabulary, Sequence[nn.Embedding]]:
    """The words that a model knows as one token, and its embedding tables."""
    model = victim.white_box.model
    tables = model.embedding_tables()
    return Vocabulary.of(model.tokenizer, min(table.num_embeddings for table in tables)), tables


def word_move(victim: Victim) -> Move:
    """What SAME does to words."""
    return Move(
        # Released code: the lowest estimates over all positions, so no word is ranked out beforehand.
        EveryWord(),
        # Released code: first-order estimate over the vocabulary, with the gradient of a token's table row,
        # which mixes all places where the token stands; words of several tokens are passed over. Ours: the
        # gradient at the place itself; a word of several tokens is replaced as a whole, by the gradient at
        # its first token; a cascade adds up the estimates of its members' tables.
        GradientWord(*vocabulary_of(victim)),
    )


def character_move(options: Options) -> Move:
    """What SAME does to characters."""
    return Move(
        # Released code: the 10 tokens with the largest sum of gradient components. Ours: the largest norm,
        # and only tokens of words that may be changed compete for the places.
        TopGradient(options.top_k),
        # Released code: neighbour swap, insertion of a random letter, deletion, homoglyph; a sample of all
        # these is tried. Ours: drawn with the seed, words and kinds taking turns; homoglyphs are Unicode's
        # confusables.
        CharacterChange(),
    )


def _same(name: str, moves: tuple[Move, ...], victim: Victim, options: Options) -> Recipe:
    require_probabilities(victim)
    return Recipe(
        name=name,
        # Released code: λ = 0.8, weights that grow from the current exit on.
        objective=Same(options.lam, options.weighting),
        moves=moves,
        # Released code: stop words stay (NLTK's list; ours: scikit-learn's), no word changes twice, at most
        # max(3, 10 %) words change. The two sides of a pair are one text, and both may change.
        constraints=constraints_of(options),
        # Released code: beam of 5, 10 rounds, score = exit layer / number of layers, which leaves most texts
        # equal. Ours: equals are ordered by the loss; best ever and stop on success, as said above.
        search=BeamSearch(options.beam, options.rounds),
        # Released code: 100 candidates for each text of the beam.
        top_n=options.top_n,
    )
