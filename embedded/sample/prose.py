"""Readable filler text, the same for the same seed."""

import random

PROSE = (
    "the customer asked about a refund for an order that never arrived and the agent looked up the tracking number "
    "before offering a replacement or credit while the model summarised earlier messages in three short points then "
    "suggested next steps with links to relevant articles please note delivery may take longer during holidays since "
    "carriers report delays across several regions our policy allows returns within thirty days provided items remain "
    "unused in original packaging contact support when payment fails twice because banks sometimes block new merchants"
)
WORDS = tuple(PROSE.split())
LENGTH = 8000


def text(seed: int) -> str:
    """Return sentences of lower-case words, without quotes, as one line of LENGTH characters."""
    dice = random.Random(seed)  # noqa: S311 (filler, not a secret)
    sentences = []
    length = 0
    while length <= LENGTH:
        sentence = " ".join(dice.choices(WORDS, k=dice.randint(5, 18))).capitalize() + ". "
        sentences.append(sentence)
        length += len(sentence)
    return "".join(sentences)[:LENGTH]
