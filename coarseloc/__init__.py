"""coarseloc tells an aircraft where it is from what it sees."""

__version__ = "0.1.0"
