"""Simulations: does the drift alarm detect new subjects, and what do updates learn and forget?"""
