"""Jobs under tools that patch RQ; run with ``make test-tools``, which installs the tools."""
