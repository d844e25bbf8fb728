"""Torch models traced into an SNNGraph, framework by framework."""
