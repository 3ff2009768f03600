"""The process that has everything loaded: it forks the workers, holds them back and reaps them."""
