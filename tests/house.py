"""The floor plan: every room on its rung, with what it is for.

A file imports from lower rungs and from its own room only. This is the architecture; changing it is a
decision and not a detail. `docs/architecture.md` is made from it.
"""

LADDER = (
    {
        "errors": "what a user can fix, with its exit code",
        "seeds": "generators that derive from what they are for",
        "terminal": "what a terminal is shown: nothing that steers it, and no secret",
    },
    {
        "config": "YAML with the place of every key, and frozen sections that refuse unknown ones",
        "rundir": "the run directory: its files, written whole or not at all, and where they came from",
        "programs": "generated programs against their tests, in a sandbox",
        "statistics": "intervals, tests and orders of scores: arrays in, records out",
        "spectra": "singular values and vectors of weights and of their changes",
    },
    {
        "contracts": "the records and moments that parts hand to each other, and what each kind provides"
    },
    {"registry": "a part found by its name, as what its kind provides"},
    {
        "weights": "pretrained weights: found, fetched, quantized, taken apart, or one layer at a time",
        "data": "rows: read from wherever they are, checked and split",
        "analyses": "questions asked of trained weights; one file an analysis, one table each",
        "quantities": "numbers of a weight that was changed; one file a quantity, one column each",
        "plots": "one file a plot: one function computes, another draws",
    },
    {
        "tasks": "rows become examples, a loss and predictions; the catalogue of known sets",
        "backbones": "pretrained models ready to be adapted; the catalogue of known ones",
        "adapters": "what all methods on PEFT share: attach, save, load, turn off",
        "selection": "which layer of a large model: streamed, scored, chosen",
        "training": "the loop, and all that it needs: batches, steps, checkpoints, several processes",
        "hooks": "what a run file brings between the loop's steps; one file a hook",
    },
    {
        "methods": "one module or package a method",
        "runfile": "a run file resolved: each section checked by the part that it names",
        "auto": "`import graftlab.auto` registers the project's own methods in PEFT and transformers",
        "encoders": "pretrained models that read texts: an embedding model, and how it is asked",
    },
    {"metrics": "one file a metric: predictions in, a score with its error out"},
    {"runs": "one run, from its file to its scores"},
    {
        "workers": "runs in processes of their own, each with its share of the machine",
        "embeddings": "texts become vectors: texts that are read, and files that are written by blocks",
    },
    {
        "drafts": "a run file drafted from data, or from the file of another program",
        "planning": "what a run will take of memory, disk and time; its data made beforehand",
        "inference": "an adapted model in use: predictions, a conversation, lm-eval",
        "study": "runs that are compared: planned, carried out, summed up",
    },
    {
        "search": "settings of a method searched for: space, trials, the winner",
        "synthesis": "rows about texts that vectors stand for: made, checked, split, chosen from",
        "explanation": "what training did to weights: what can be analysed, tables, figures",
        "release": "what leaves the house: export, merge with a certificate, push to a hub",
        "testing": "what every part must keep, written once over the registry's names",
        "demo": "a study on handwritten digits that needs no download",
        "report": "a study, a run or a search as a page that needs nothing beside itself, and as tables",
    },
    {
        "browser": "a folder of runs in a browser of this machine: states, live curves, stop and resume",
    },
    {
        "commands": "one file a command: options, one call, printing",
        "cli": "the command line, which imports only the command that is asked for",
    },
)
RUNG = {room: rung for rung, rooms in enumerate(LADDER) for room in rooms}

MAY_FIND = {"auto", "runfile", "runs", "planning", "inference", "study", "release", "explanation", "search",
            "demo", "testing", "commands", "cli"}  # fmt: skip
"""Rooms that may look parts up by name; what a lower one needs of a method or a task is handed to it."""
