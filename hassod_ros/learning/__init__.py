"""Stage 2: learn a detector from masks that nobody drew (HASSOD, sections 3.2 and 3.3)."""
