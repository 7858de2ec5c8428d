"""Tiny checkpoints of published reward models, each laid out as its family publishes it, and a plain reference for each.

`families.MATRIX` lists them. `Family.write` makes a folder: config.json with the published class name, weights under the published key
names, a tokenizer. `Family.reference` reads that folder and computes the reward as the published modelling code does: Hugging Face's
trunk, then the head in a few lines of torch. Nothing here imports `tl_reward`, so that a test compares two readings of one definition.
"""
