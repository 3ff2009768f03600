"""The pool's supervisor: senses, decides and acts once a second, and settles dead workers' jobs."""
