"""RQ's jobs as Redis holds them: claimed, stored, restored, set aside, alike for RQ 2 and RQ 3."""
