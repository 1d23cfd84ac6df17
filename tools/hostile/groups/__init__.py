"""Groups of cases: each module has a function `cases()` that gives them."""
