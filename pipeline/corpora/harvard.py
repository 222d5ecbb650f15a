"""The Harvard sentences: 72 lists of ten, phonetically balanced, a standard neutral text.

From "IEEE Recommended Practice for Speech Quality Measurements", IEEE Transactions on Audio and
Electroacoustics 17(3), 1969, appendix C. In each list, the sounds of English are about as frequent
as in speech.
"""

from importlib import resources

LIST_LENGTH = 10

SENTENCES = tuple(
    resources.files(__package__)
    .joinpath("harvard_sentences.txt")
    .read_text(encoding="utf-8")
    .splitlines()
)
