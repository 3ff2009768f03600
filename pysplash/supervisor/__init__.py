"""The pool: sense, decide, act once a second; settle what dead workers held."""
