"""The base class of the stages' configs, and the configs with a module each."""
