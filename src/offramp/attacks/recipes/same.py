"""SAME: the slowdown attack of Chen et al. 2023, "Dynamic Transformers Provide a False Sense of Efficiency".

Source: arXiv 2305.12228. SAME is a white-box attack: it takes gradients through all exits.

Three flaws of the released code are not repeated:
1. it never zeroes gradients, so each step follows the sum over all earlier inputs. Here every gradient is
   fresh, and an example's attack depends on no other example;
2. it returns the best text of the last round. Here the result is the best text of all rounds, which is never
   weaker than the input;
3. it skips a text that leaves at the last exit already, but does not stop once an edited one does. Here the search
   makes no query after a text leaves at the last exit.

The search needs the answers of the strongest texts only, so a victim whose layers are open does not run the layers that
cannot change which texts these are (`attacks/victims/ranking.py`). The result is the same.
"""

from __future__ import annotations

from dataclasses import replace

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.same import Same
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Composition, Recipe, require_classes_inside
from offramp.attacks.search.local import BeamSearch
from offramp.attacks.search.space import EveryWord, Move, TopGradient
from offramp.attacks.search.surrogate import ExitPredictor
from offramp.attacks.search.surrogate_search import SurrogateSearch
from offramp.attacks.transformations.characters import CharacterChange
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.base import Victim

SAME_CLAIM = 0.8  # share of the savings that the paper's victims lose
PROFILES = 1000  # words that `SamePlus` tries


class SameWord(Recipe):
    """SAME on words: a word becomes the word that should lower the loss most."""

    name, label = "same-word", "SAME, words"
    access = "gradients"
    claim = SAME_CLAIM

    def compose(self, victim: Victim, options: Options) -> Composition:
        require_classes_inside(victim)
        return Composition(
            # Released code: λ = 0.8, weights that grow from the current exit on.
            objective=Same(options.disagreement_weight, options.weighting),
            moves=self.moves(victim, options),
            # Released code: stop words stay (NLTK's list; ours: scikit-learn's), no word changes twice, at most
            # max(3, 10 %) words change. The two sides of a pair are one text, and both may change.
            constraints=constraints_of(options),
            # Released code: beam of 5, 10 rounds, score = exit layer / number of layers, which leaves most texts
            # equal. Ours: the loss orders equal texts; for best of all rounds and stop on success see above.
            search=BeamSearch(options.beam, options.rounds),
            # Released code: 100 candidates for each text of the beam.
            top_n=options.top_n,
        )

    def moves(self, victim: Victim, options: Options) -> tuple[Move, ...]:
        """The ways to change a text."""
        return (word_move(victim),)


class SameChar(SameWord):
    """SAME on characters: one character of an important word changes."""

    name, label = "same-char", "SAME, characters"

    def moves(self, victim: Victim, options: Options) -> tuple[Move, ...]:
        return (character_move(options),)


class SameMixed(SameWord):
    """SAME on words and characters, with half of the tries each (ours): no more queries than either."""

    name, label = "same-mixed", "SAME, words and characters"

    def moves(self, victim: Victim, options: Options) -> tuple[Move, ...]:
        return word_move(victim), character_move(options)


def word_move(victim: Victim) -> Move:
    """SAME's way to change words."""
    from offramp.attacks.transformations.model_word import GradientWord

    model = victim.white_box.model
    return Move(
        # Released code: the lowest estimates over all positions, so all words stay in.
        EveryWord(),
        # Released code: first-order estimate over the vocabulary, with the gradient of a token's table row,
        # which mixes all positions of the token; words of several tokens are skipped. Ours: the gradient at
        # the position itself; a word of several tokens is replaced as a whole, by the gradient at its first
        # token; a cascade adds up the estimates of its members' tables.
        GradientWord(Vocabulary.of_model(model), model.embedding_tables()),
    )


def character_move(options: Options) -> Move:
    """SAME's way to change characters."""
    return Move(
        # Released code: the 10 tokens with the largest sum of gradient components. Ours: the largest norm, and
        # only among tokens of words that may change.
        TopGradient(options.top_k),
        # Released code: neighbour swap, insertion of a random letter, deletion, homoglyph; a sample of all
        # these is tried. Ours: drawn with the seed; words and kinds take turns; homoglyphs are Unicode's
        # confusables.
        CharacterChange(),
    )


class SamePlus(Recipe):
    """SAME with our search: about SAME's slowdown under the same budget of words, for a fraction of the queries.

    On some texts it reaches less than SAME, on others more, and it usually changes more words: it starts with sets of
    words of every size, where SAME starts with one word.

    The threat is SAME's: the attacker sees all internal predictions and the exit rule, and changes as many words as
    SAME may, into words that SAME may choose. Everything else is *ours*, and measured against `same-word`:
    1. The first-order estimate of a replacement is weak. The exits' predictions for the new word alone are better: one
       short text for each of a thousand words, once per victim (docs/decisions.md has the correlations).
    2. The joint effect of several changes is estimated as a sum, fitted to every answer as it arrives.
    3. Estimates go through the victim's own exit rule. Texts with equal exits are ordered by how far their exits pass
       the threshold: SAME's loss ignores the rule.
    4. The victim is asked about eight texts per round, with one changed word up to the budget, and not after success.
       Four of these rounds replace one of SAME's. `beam` and `top_n` have no effect.
    """

    name, label = "same-plus", "SAME with our search"
    access = "probabilities"
    claim = SAME_CLAIM
    profiles_victim = True

    def compose(self, victim: Victim, options: Options) -> Composition:
        model = victim.white_box
        predictor = ExitPredictor(model, Vocabulary.of_model(model.model), PROFILES, own=model is victim)
        search = SurrogateSearch(predictor, rounds=4 * options.rounds)
        return replace(SameWord().compose(victim, options), moves=(), search=search)
