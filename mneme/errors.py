"""What goes wrong, in one sentence each: the place, the problem, the mend."""


class MnemeError(Exception):
    """Base of every error that a user is meant to read; its text is one sentence."""


class BadInput(MnemeError, ValueError):
    """The input is refused before any compute."""


class NotApplicable(MnemeError):
    """The question makes no sense here (a text promptset for a model without a tokenizer); recorded, not failed."""


class ParityError(MnemeError):
    """Our attention function does not reproduce the stock model's logits; head methods are refused."""
