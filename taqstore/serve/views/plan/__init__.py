"""Budgets of bits and groups of steps moved by hand, beside what was measured."""
