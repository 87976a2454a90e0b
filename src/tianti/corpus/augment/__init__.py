"""Changed copies of training documents: noise of typing, reading and hearing, and expansion."""
