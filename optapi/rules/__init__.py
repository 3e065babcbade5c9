"""The rules, one module for each family, and what several families share."""
