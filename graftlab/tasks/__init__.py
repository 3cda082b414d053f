"""Task kinds are the modules of this package; `catalogue/*.yaml` names data sets for them.

A catalogue entry is a YAML mapping: `about:` (one line for `graftlab list`), `aliases:` (a list of
further names), and then the fields of the section of its `kind:` (see `graftlab.data.section` for those
that all kinds have), as they would stand under `task:` in a run file. `task: {name: sst2, ...}` lays the
other keys of the run file over the entry: sections merge key by key, all else replaces; so `data_dir:`
or `files:` given there win over the entry's `hub:` or `source:`.
"""
