"""A run made public: its model card, and adapter, run file and data uploaded to the Hugging Face hub."""

from graftlab.release.push.upload import Options, Pushed, push, push_rows

__all__ = ["Options", "Pushed", "push", "push_rows"]
